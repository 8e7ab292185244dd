/* SPDX-License-Identifier: Apache-2.0 */
/* The MCP server behind every path of the benchmark: HTTP/1.1 keep-alive, epoll, one thread, no state but its counts.
 *
 * It speaks 2026-07-28 and the handshake revisions. Every tool echoes its arguments in a text content, even a tool that it
 * does not list: a canary that gets through must look like a success, so that only the checks notice it. `GET /count`
 * tells what arrived: how many calls, with whose credential, with the trace and the name that their bodies speak of.
 *
 *   upstream --credential TOKEN [--tools N]        prints {"port": N} and serves until its parent is gone
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http.h"

#define CONNECTIONS_MAX 4096
#define REQUEST_BYTES_MAX (8u << 20)
#define SCHEMA                                                                                                      \
    "{\"type\":\"object\",\"properties\":{\"id\":{\"type\":\"string\",\"maxLength\":64},\"token\":{\"type\":"        \
    "\"string\",\"pattern\":\"^[0-9a-f]{32}$\"},\"trace\":{\"type\":\"string\",\"pattern\":\"^[0-9a-f]{32}$\"},"    \
    "\"pad\":{\"type\":\"string\",\"maxLength\":4096}},\"required\":[\"id\",\"token\",\"trace\"],"                  \
    "\"additionalProperties\":false}"
#define INFO "\"serverInfo\":{\"name\":\"bench-upstream\",\"version\":\"1.0.0\"}"
#define META "\"_meta\":{\"io.modelcontextprotocol/serverInfo\":{\"name\":\"bench-upstream\",\"version\":\"1.0.0\"}}"

typedef struct {
    buffer in, out;
    size_t written;
    int open;
} connection;

static connection connections[CONNECTIONS_MAX];
static struct {
    unsigned long calls, others, traced, named, credential, anonymous, foreign;
} counted;
static char authorization[512];
static int tools_more;
static int poller;

static void reply(buffer *out, int status, const char *text, const char *body, size_t size) {
    buffer_print(out, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n", status, text, size);
    buffer_add(out, body, size);
}

static void reply_text(buffer *out, int status, const char *text, const char *body) {
    reply(out, status, text, body, strlen(body));
}

static void add_escaped(buffer *b, slice raw) {
    buffer_reserve(b, raw.size * 2);
    for (size_t i = 0; i < raw.size; i++) {
        char c = raw.at[i];
        if (c == '"' || c == '\\') b->at[b->used++] = '\\';
        b->at[b->used++] = c;
    }
}

static void note_call(slice head, slice name, slice arguments) {
    slice value, trace;
    counted.calls++;
    if (!slice_is(name, "\"echo\"")) counted.others++;
    if (http_header(head, "traceparent", &value) && value.size == 55 && json_member(arguments, "trace", &trace) &&
        trace.size == 34 && memcmp(value.at + 3, trace.at + 1, 32) == 0)
        counted.traced++;
    if (http_header(head, "mcp-name", &value) && value.size + 2 == name.size && memcmp(value.at, name.at + 1, value.size) == 0)
        counted.named++;
    if (!http_header(head, "authorization", &value)) counted.anonymous++;
    else if (slice_is(value, authorization)) counted.credential++;
    else counted.foreign++;
}

static void add_call(buffer *body, slice head, slice params) {
    slice name, arguments = {"{}", 2}, seen = {"", 0};
    if (!json_member(params, "name", &name)) {
        buffer_print(body, "\"error\":{\"code\":-32602,\"message\":\"no name\"}}");
        return;
    }
    json_member(params, "arguments", &arguments);
    http_header(head, "mcp-name", &seen);
    note_call(head, name, arguments);
    buffer_print(body, "\"result\":{\"resultType\":\"complete\",\"content\":[{\"type\":\"text\",\"text\":\"{\\\"name\\\":\\\"");
    add_escaped(body, seen);
    buffer_print(body, "\\\",\\\"arguments\\\":");
    add_escaped(body, arguments);
    buffer_print(body, "}\"}],\"isError\":false," META "}}");
}

static void add_tools(buffer *body) {
    const char *first[] = {"echo", "forbidden", "exhausted"};
    buffer_print(body, "\"result\":{\"resultType\":\"complete\",\"ttlMs\":3600000,\"cacheScope\":\"private\",\"tools\":[");
    for (int i = 0; i < 3; i++)
        buffer_print(body, "%s{\"name\":\"%s\",\"description\":\"Echoes its arguments.\",\"inputSchema\":%s}", i ? "," : "",
                     first[i], SCHEMA);
    for (int i = 0; i < tools_more; i++)
        buffer_print(body, ",{\"name\":\"tool_%05d\",\"description\":\"Echoes its arguments.\",\"inputSchema\":%s}", i, SCHEMA);
    buffer_print(body, "]," META "}}");
}

static void add_initialize(buffer *body, slice params) {
    slice version = {"\"2025-11-25\"", 12};
    json_member(params, "protocolVersion", &version);
    if (!slice_is(version, "\"2025-03-26\"") && !slice_is(version, "\"2025-06-18\"")) version = (slice){"\"2025-11-25\"", 12};
    buffer_print(body, "\"result\":{\"protocolVersion\":%.*s,\"capabilities\":{\"tools\":{}}," INFO "}}", (int)version.size,
                 version.at);
}

/* Answers one JSON-RPC message. */
static void rpc(connection *c, slice head, slice message) {
    static buffer body;
    slice id, method, params = {"{}", 2};
    int status = 200;
    body.used = 0;
    if (!json_member(message, "method", &method)) {
        reply_text(&c->out, 400, "Bad Request", "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32600,\"message\":\"no method\"}}");
        return;
    }
    if (!json_member(message, "id", &id)) {
        reply_text(&c->out, 202, "Accepted", "");
        return;
    }
    json_member(message, "params", &params);
    buffer_print(&body, "{\"jsonrpc\":\"2.0\",\"id\":%.*s,", (int)id.size, id.at);
    if (slice_is(method, "\"tools/call\"")) add_call(&body, head, params);
    else if (slice_is(method, "\"tools/list\"")) add_tools(&body);
    else if (slice_is(method, "\"server/discover\""))
        buffer_print(&body, "\"result\":{\"resultType\":\"complete\",\"ttlMs\":3600000,\"cacheScope\":\"private\",\"capabilities\":"
                            "{\"tools\":{}},\"supportedVersions\":[\"2026-07-28\"]," META "}}");
    else if (slice_is(method, "\"initialize\"")) add_initialize(&body, params);
    else if (slice_is(method, "\"ping\"")) buffer_print(&body, "\"result\":{}}");
    else {
        status = 404;
        buffer_print(&body, "\"error\":{\"code\":-32601,\"message\":\"unknown method\"}}");
    }
    reply(&c->out, status, status == 200 ? "OK" : "Not Found", body.at, body.used);
}

static void count(connection *c) {
    char text[512];
    snprintf(text, sizeof text,
             "{\"calls\":%lu,\"others\":%lu,\"traced\":%lu,\"named\":%lu,\"credential\":%lu,\"anonymous\":%lu,\"foreign\":%lu}",
             counted.calls, counted.others, counted.traced, counted.named, counted.credential, counted.anonymous,
             counted.foreign);
    reply_text(&c->out, 200, "OK", text);
}

static void drop(int descriptor) {
    connection *c = &connections[descriptor];
    close(descriptor);
    c->open = 0;
    c->in.used = c->out.used = c->written = 0;
}

/* Serves every whole request that has arrived; 0 when the connection must be closed. */
static int serve(connection *c) {
    size_t done = 0;
    for (;;) {
        slice head = {c->in.at + done, http_head(c->in.at + done, c->in.used - done)};
        long length;
        if (!head.size) break;
        length = http_length(head);
        if (memcmp(head.at, "GET /count ", 11) == 0) count(c);
        else if (memcmp(head.at, "POST ", 5) != 0) reply_text(&c->out, 405, "Method Not Allowed", "{}");
        else if (length < 0 || (size_t)length > REQUEST_BYTES_MAX) return 0;
        else if (c->in.used - done < head.size + (size_t)length) break;
        else rpc(c, head, (slice){head.at + head.size, (size_t)length});
        done += head.size + (length > 0 ? (size_t)length : 0);
    }
    buffer_drop(&c->in, done);
    return c->in.used <= REQUEST_BYTES_MAX;
}

static void flush(int descriptor) {
    connection *c = &connections[descriptor];
    while (c->written < c->out.used) {
        ssize_t n = send(descriptor, c->out.at + c->written, c->out.used - c->written, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.fd = descriptor};
            epoll_ctl(poller, EPOLL_CTL_MOD, descriptor, &event);
            return;
        }
        if (n < 0) {
            drop(descriptor);
            return;
        }
        c->written += (size_t)n;
    }
    c->out.used = c->written = 0;
}

static void readable(int descriptor) {
    connection *c = &connections[descriptor];
    ssize_t n;
    buffer_reserve(&c->in, 16384);
    n = recv(descriptor, c->in.at + c->in.used, c->in.room - c->in.used, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        drop(descriptor);
        return;
    }
    c->in.used += (size_t)n;
    if (!serve(c)) drop(descriptor);
    else flush(descriptor);
}

static void writable(int descriptor) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = descriptor};
    epoll_ctl(poller, EPOLL_CTL_MOD, descriptor, &event);
    flush(descriptor);
}

static void welcome(int listener) {
    int one = 1, descriptor;
    while ((descriptor = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = descriptor};
        if (descriptor >= CONNECTIONS_MAX) {
            close(descriptor);
            continue;
        }
        setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        connections[descriptor].open = 1;
        epoll_ctl(poller, EPOLL_CTL_ADD, descriptor, &event);
    }
}

static int listening(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024)) {
        perror("upstream: cannot listen on 127.0.0.1");
        exit(1);
    }
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("{\"port\":%d}\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

int main(int count_of, char **given) {
    struct epoll_event events[256], event = {.events = EPOLLIN};
    int listener;
    for (int i = 1; i + 1 < count_of; i += 2) {
        if (!strcmp(given[i], "--credential")) snprintf(authorization, sizeof authorization, "Bearer %s", given[i + 1]);
        else if (!strcmp(given[i], "--tools")) tools_more = atoi(given[i + 1]);
        else {
            fprintf(stderr, "upstream: unknown option %s\n", given[i]);
            return 2;
        }
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    poller = epoll_create1(EPOLL_CLOEXEC);
    event.data.fd = listener = listening();
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            int descriptor = events[i].data.fd;
            if (descriptor == listener) {
                welcome(listener);
                continue;
            }
            if ((events[i].events & EPOLLOUT) && connections[descriptor].open) writable(descriptor);
            if ((events[i].events & ~(unsigned)EPOLLOUT) && connections[descriptor].open) readable(descriptor);
        }
    }
}
