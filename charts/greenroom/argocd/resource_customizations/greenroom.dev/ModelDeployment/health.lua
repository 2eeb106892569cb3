-- The operator of greenroom.dev reports the conditions Ready, Progressing and Degraded and, only while they are true,
-- kstatus' Reconciling and Stalled.

local function is_true(condition)
  return condition ~= nil and condition.status == "True"
end

local function judge(status, condition)
  return {status = status, message = condition.message}
end

-- Looked at before the generation: an operator that has been told to keep its hands off observes no change, on purpose.
local annotations = obj.metadata.annotations
if annotations ~= nil and annotations["greenroom.dev/reconcile"] == "disabled" then
  return {status = "Suspended", message = "annotation greenroom.dev/reconcile: disabled; remove it to let the operator work again"}
end

local conditions = {}
if obj.status ~= nil and obj.status.conditions ~= nil then
  for _, condition in ipairs(obj.status.conditions) do
    conditions[condition.type] = condition
  end
end

local ready = conditions["Ready"]
local progressing = conditions["Progressing"]
if ready == nil or progressing == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "waiting for the operator to observe the newest spec"}
end

if is_true(conditions["Stalled"]) then
  return judge("Degraded", conditions["Stalled"])
end
if is_true(conditions["Degraded"]) then
  return judge("Degraded", conditions["Degraded"])
end
if is_true(conditions["Reconciling"]) then
  return judge("Progressing", conditions["Reconciling"])
end
-- A share without steps is what was asked for, for as long as it is.
if progressing.reason == "RollingOut" and obj.spec.rollout ~= nil and obj.spec.rollout.steps == nil and is_true(ready) then
  return judge("Healthy", ready)
end
if is_true(progressing) then
  return judge("Progressing", progressing)
end
if progressing.reason == "Paused" then
  return judge("Suspended", progressing)
end
if progressing.reason == "ReconcileDisabled" then
  return {status = "Progressing", message = "waiting for the operator to work again"}
end
-- Zero replicas are what was asked for, as for a Deployment. Anything but Healthy would hold up, for good, a sync with
-- waves, and with it every later commit.
if is_true(ready) or ready.reason == "ScaledToZero" then
  return judge("Healthy", ready)
end
return judge("Progressing", ready)
