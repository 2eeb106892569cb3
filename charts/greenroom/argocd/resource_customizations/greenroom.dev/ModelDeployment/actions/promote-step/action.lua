if obj.spec.rollout == nil then
  error("promote-step: spec.rollout is not set, so there is no rollout", 0)
end
local rollout = obj.status ~= nil and obj.status.rollout or nil
-- A rollout that waits for its shadow begins, with steps or without.
if obj.spec.rollout.steps == nil and (rollout == nil or rollout.state ~= "WaitingForShadow") then
  error("promote-step: spec.rollout has no steps; set spec.rollout.percent", 0)
end
if rollout == nil or rollout.version ~= obj.spec.rollout.version then
  error("promote-step: the rollout of " .. obj.spec.rollout.version .. " has not begun", 0)
end
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
-- The operator carries each value out once. This one names the step, so that two clicks promote one step, not two.
local step = obj.metadata.generation .. "-" .. (rollout.step or 0)
obj.metadata.annotations["greenroom.dev/action"] = "promote-step/" .. rollout.version .. "/" .. step
return obj
