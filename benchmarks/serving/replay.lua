-- Sends requests that were built beforehand, one after the other, and reports as one line of JSON.
-- wrk -s replay.lua URL -- FILE: FILE holds "LENGTH\n" and that many bytes of raw HTTP, again and again.
local requests, index = {}, 0

function init(args)
   local file = assert(io.open(args[1], "rb"))
   local length = file:read("*n")
   while length do
      file:read(1)
      requests[#requests + 1] = file:read(length)
      length = file:read("*n")
   end
   file:close()
end

function request()
   index = index % #requests + 1
   return requests[index]
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '\n{"requests": %d, "seconds": %.6f, "p50_us": %d, "p99_us": %d, "max_us": %d, '
      .. '"bad_statuses": %d, "socket_errors": %d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99), latency.max,
      errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
