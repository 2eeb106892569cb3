-- The refused version: the spec's where its promotion was refused, or where no pod can serve it; else the rollout's.
local status = obj.status or {}
local promotion = status.promotion
local refused = promotion ~= nil and promotion.state == "Refused" and promotion.version == obj.spec.version
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Stalled" and condition.status == "True" and condition.reason == "VerificationFailed" then
    refused = true
  end
end
local version = obj.spec.version
if not refused and obj.spec.rollout ~= nil then
  version = obj.spec.rollout.version
end

if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
-- The operator carries each value out once; by the resourceVersion this one is new.
obj.metadata.annotations["greenroom.dev/action"] = "retry/" .. version .. "/" .. obj.metadata.resourceVersion
return obj
