"""The contenders' own programs. Each runs in an environment of its own, so none imports Greenroom."""
