if obj.spec.rollout == nil then
  error("abort: spec.rollout is not set, so there is no rollout", 0)
end
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
-- The operator carries each value out once; by the resourceVersion this one is new.
obj.metadata.annotations["greenroom.dev/action"] = "abort/" .. obj.spec.rollout.version .. "/" .. obj.metadata.resourceVersion
return obj
