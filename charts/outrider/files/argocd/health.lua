-- Health of an MCPServer, MCPToolPolicy or MCPBudget for Argo CD, from the conditions that the operator writes.
-- Ready=Unknown is progress: nobody has said anything yet, or not about this generation. So is Pending: sidecars answer in seconds.
local health = {status = "Progressing", message = "The operator has not looked at it yet"}
local status = obj.status
if status == nil or status.conditions == nil then
  return health
end
if status.observedGeneration ~= nil and status.observedGeneration ~= obj.metadata.generation then
  health.message = "The operator has not looked at this generation yet"
  return health
end
for _, condition in ipairs(status.conditions) do
  if condition.type == "Stalled" and condition.status == "True" then
    return {status = "Degraded", message = condition.message}
  end
end
for _, condition in ipairs(status.conditions) do
  if condition.type == "Ready" then
    health.message = condition.message
    if condition.status == "True" then
      health.status = "Healthy"
    elseif condition.status == "False" and condition.reason ~= "Pending" then
      health.status = "Degraded"
    end
  end
end
return health
