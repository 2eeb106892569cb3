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

local paused = rollout.state == "Paused"
local running = rollout.state == "Running" or rollout.state == "Holding"
local under_way = running or paused or rollout.state == "Preparing" or rollout.state == "WaitingForShadow"

-- A first version that no pod can serve is refused without a promotion.
local refused = promotion.state == "Refused"
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Stalled" and condition.status == "True" and condition.reason == "VerificationFailed" then
    refused = true
  end
end

local paused_by_spec = asked ~= nil and asked.paused == true
local paused_by_action = rollout.pausedByAction == true

return {
  ["promote-step"] = {disabled = not (running or paused)},
  ["abort"] = {disabled = not (under_way or rollout.state == "Complete")},
  ["pause"] = {disabled = not under_way or paused_by_spec or paused_by_action},
  -- A pause by the spec ends in the spec.
  ["resume"] = {disabled = not (under_way and paused_by_action)},
  ["retry"] = {disabled = not (refused or rollout.state == "Refused" or rollout.state == "Aborted")},
}
