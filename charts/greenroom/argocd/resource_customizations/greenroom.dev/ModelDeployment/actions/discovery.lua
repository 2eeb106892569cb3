-- An action is enabled only where the operator would carry it out.

local asked = obj.spec.rollout
local status = obj.status or {}
local promotion = status.promotion
local rollout = status.rollout

-- What status says of another version than the spec's is old.
if asked == nil or rollout == nil or rollout.version ~= asked.version then
  rollout = {}
end
if promotion == nil or promotion.version ~= obj.spec.version then
  promotion = {}
end

local begun = rollout.state == "Running" or rollout.state == "Holding" or rollout.state == "Paused"
local waits = rollout.state == "WaitingForShadow"
local under_way = begun or waits or rollout.state == "Preparing"

-- A first version that no pod can serve is refused without a promotion.
local refused = promotion.state == "Refused"
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Stalled" and condition.status == "True" and condition.reason == "VerificationFailed" then
    refused = true
  end
end

local ended = rollout.state == "Refused" or rollout.state == "Aborted"
-- Once its version is production there is nothing to begin anew; after a way back in an emergency there is.
if rollout.state == "Promoted" and rollout.version ~= obj.spec.version then
  ended = true
end

-- A shadow that has failed, or is broken, is tried again.
local shadow_failed = false
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "ShadowHealthy" and condition.status == "False" and obj.spec.shadow ~= nil then
    shadow_failed = true
  end
end

local has_steps = asked ~= nil and asked.steps ~= nil
local paused_by_spec = asked ~= nil and asked.paused == true
local paused_by_action = rollout.pausedByAction == true

return {
  ["promote-step"] = {disabled = not ((begun and has_steps) or waits)},
  ["abort"] = {disabled = not (under_way or rollout.state == "Complete")},
  ["pause"] = {disabled = not under_way or paused_by_spec or paused_by_action},
  -- A pause by the spec ends in the spec.
  ["resume"] = {disabled = not (under_way and paused_by_action) or paused_by_spec},
  ["retry"] = {disabled = not (refused or ended or shadow_failed)},
}
