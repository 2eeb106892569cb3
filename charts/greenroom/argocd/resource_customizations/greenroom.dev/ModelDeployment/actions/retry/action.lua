-- The refused version: the spec's where its promotion was refused, or where no pod can serve it; the rollout's where
-- that has ended; else the shadow's where that has failed, or is broken.
local status = obj.status or {}
local promotion = status.promotion
local refused = promotion ~= nil and promotion.state == "Refused" and promotion.version == obj.spec.version
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Stalled" and condition.status == "True" and condition.reason == "VerificationFailed" then
    refused = true
  end
end
local shadow_failed = false
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "ShadowHealthy" and condition.status == "False" and obj.spec.shadow ~= nil then
    shadow_failed = true
  end
end
local rollout = status.rollout or {}
local ended = rollout.state == "Refused" or rollout.state == "Aborted" or rollout.state == "Promoted"
local version = obj.spec.version
if not refused and obj.spec.rollout ~= nil and (ended or not shadow_failed) then
  version = obj.spec.rollout.version
elseif not refused and shadow_failed then
  version = obj.spec.shadow.version
end

if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
-- The operator carries each value out once; by the resourceVersion this one is new.
obj.metadata.annotations["greenroom.dev/action"] = "retry/" .. version .. "/" .. obj.metadata.resourceVersion
return obj
