"""The feature cache: what a request leaves out is fetched by entity, and answered in every case.

memory -> Redis -> compute -> what was kept beyond its time -> defaults -> a problem that says why.
"""
