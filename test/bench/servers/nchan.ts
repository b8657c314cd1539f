/**
 * nginx with nchan, one worker, on a free port of its own configuration; published to over HTTP by this process, as one
 * would from an application.
 */
import { spawn } from "node:child_process"
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { Agent, createServer, request } from "node:http"
import { tmpdir } from "node:os"
import { broadcast, port, readBroadcast, ready } from "../support/broadcast.js"
import { nchanModule } from "../support/nchan.js"

const folder = mkdtempSync(`${tmpdir()}/effect-sse-nchan-`)
const control = port + 1
writeFileSync(
  `${folder}/nginx.conf`,
  `${existsSync(nchanModule) ? `load_module ${nchanModule};` : ""}
daemon off; worker_processes 1; worker_rlimit_nofile 20000; pid ${folder}/pid; error_log ${folder}/error.log;
events { worker_connections 20000; }
http {
  access_log off; client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy; fastcgi_temp_path ${folder}/f;
  uwsgi_temp_path ${folder}/u; scgi_temp_path ${folder}/s; keepalive_requests 10000000;
  nchan_max_reserved_memory 512M; nchan_message_buffer_length 100000;
  server {
    listen 127.0.0.1:${port} backlog=16384;
    location = /subscribe/bench { nchan_subscriber eventsource; nchan_channel_id bench; nchan_eventsource_ping_interval 15;
      nchan_subscriber_first_message newest; }
    location = /publish { nchan_publisher; nchan_channel_id bench; }
    location /bench/ { proxy_pass http://127.0.0.1:${control}; }
  }
}
`
)
const nginx = spawn("nginx", ["-c", `${folder}/nginx.conf`, "-p", folder], { stdio: "inherit" })

const agent = new Agent({ keepAlive: true, maxSockets: 16 })
const publish = (data: string) => {
  const post = request({ port, host: "127.0.0.1", path: "/publish", method: "POST", agent }, (answer) =>
    answer.resume()
  )
  post.on("error", () => {})
  post.end(data)
}

createServer((request, response) => {
  const url = request.url ?? "/"
  if (url.startsWith("/bench/start")) {
    // Subscribers of a channel that has had no message miss its first one.
    publish("first")
    setTimeout(() => broadcast(readBroadcast(url), publish), 200)
  }
  response.end("done\n")
}).listen(control, "127.0.0.1", () => setTimeout(ready, 300))

process.on("SIGTERM", () => {
  nginx.kill("SIGTERM")
  nginx.once("close", () => {
    rmSync(folder, { recursive: true, force: true })
    process.exit(0)
  })
})
