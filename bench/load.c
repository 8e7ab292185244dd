/* SPDX-License-Identifier: Apache-2.0 */
/* The load generator: makes tools/call requests over keep-alive connections and believes no answer that it did not check.
 *
 * Closed loop (--mode closed): each connection has one call under way. Open loop (--mode open --rate R): calls are due at
 * fixed moments and their latency counts from that moment, also when every connection is busy (no coordinated omission).
 * Every call has its own id (numbers and texts), token, traceparent and length. Every answer must be HTTP 200, carry that
 * id and echo exactly those arguments. Every --canary-every'th call names a tool of --canaries and must end as
 * --canary-expect says: `echo` (nothing refuses here), `refusal` (a result with isError and dev.outrider/refusal) or
 * `403`. Prints one JSON object. Wrong or missing answers are counted, never repeated.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "http.h"

#define CONNECTIONS_MAX 1024
#define CANARIES_MAX 8
#define GRACE_NS 10000000000ull
#define META                                                                                                       \
    "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\"io.modelcontextprotocol/clientInfo\":" \
    "{\"name\":\"bench\",\"version\":\"1.0.0\"},\"io.modelcontextprotocol/clientCapabilities\":{}}"

typedef struct {
    int descriptor, busy;
    buffer in;
    uint64_t from; /* the moment its latency counts from */
    int counts;    /* whether its latency is a sample: not while warming up, and no canary */
    const char *canary;
    char id[48], token[33], trace[33], pad[256];
} connection;

static struct {
    const char *path, *authorization, *expect, *tool;
    const char *canaries[CANARIES_MAX];
    int port, connections, open, canary_count;
    uint64_t canary_every, seed, warm_ns, run_ns;
    double rate;
} asked = {.path = "/mcp", .authorization = "none", .expect = "echo", .tool = "echo", .connections = 1, .run_ns = 1000000000};

static struct {
    uint64_t sent, answered, echoed, refused, canaries, wrong, lost, reconnects, backlog_max, measured, ended;
    char complaint[400];
} seen;

static connection pool[CONNECTIONS_MAX];
static uint64_t *samples;
static size_t samples_used, samples_room;
static int poller;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

/* splitmix64: numbers that do not repeat for any one seed. */
static uint64_t mixed(uint64_t n) {
    n += 0x9e3779b97f4a7c15ull;
    n = (n ^ (n >> 30)) * 0xbf58476d1ce4e5b9ull;
    n = (n ^ (n >> 27)) * 0x94d049bb133111ebull;
    return n ^ (n >> 31);
}

static void complain(const char *what, slice body) {
    if (seen.complaint[0]) return;
    snprintf(seen.complaint, sizeof seen.complaint, "%s: %.*s", what, (int)(body.size < 240 ? body.size : 240), body.at);
    for (char *c = seen.complaint; *c; c++)
        if (*c == '"' || *c == '\\' || (unsigned char)*c < 32 || (unsigned char)*c > 126) *c = '\'';
}

static void sample(uint64_t ns) {
    if (samples_used == samples_room) {
        samples_room = samples_room ? samples_room * 2 : 65536;
        samples = realloc(samples, samples_room * sizeof *samples);
        if (!samples) exit(70);
    }
    samples[samples_used++] = ns;
}

static void connect_one(connection *c) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)asked.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    int one = 1;
    c->descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(c->descriptor, (struct sockaddr *)&to, sizeof to)) {
        fprintf(stderr, "load: cannot connect to 127.0.0.1:%d: %s\n", asked.port, strerror(errno));
        exit(1);
    }
    setsockopt(c->descriptor, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    epoll_ctl(poller, EPOLL_CTL_ADD, c->descriptor, &event);
    c->in.used = 0;
    c->busy = 0;
}

static void reconnect(connection *c) {
    close(c->descriptor);
    seen.reconnects++;
    connect_one(c);
}

/* Makes what is unique about the next call. */
static void prepare(connection *c) {
    uint64_t n = seen.sent, a = mixed(asked.seed + n * 4), b = mixed(asked.seed + n * 4 + 1);
    size_t pad = (size_t)(mixed(asked.seed + n * 4 + 2) % 192);
    snprintf(c->token, sizeof c->token, "%016llx%016llx", (unsigned long long)a, (unsigned long long)b);
    snprintf(c->trace, sizeof c->trace, "%016llx%016llx", (unsigned long long)b, (unsigned long long)(a | 1));
    if (n % 8 == 7) snprintf(c->id, sizeof c->id, "\"%llx-%llu\"", (unsigned long long)asked.seed, (unsigned long long)n);
    else snprintf(c->id, sizeof c->id, "%llu", (unsigned long long)(n + (asked.seed & 0xffffff) * 1000000ull));
    memset(c->pad, 'a' + (int)(n % 26), pad);
    c->pad[pad] = 0;
    c->canary = NULL;
    if (asked.canary_every && n % asked.canary_every == asked.canary_every - 1) {
        c->canary = asked.canaries[seen.canaries % (uint64_t)asked.canary_count];
        seen.canaries++;
    }
}

static void call(connection *c, uint64_t from, int counts) {
    static buffer head, body;
    const char *tool;
    prepare(c);
    tool = c->canary ? c->canary : asked.tool;
    head.used = body.used = 0;
    buffer_print(&body,
                 "{\"jsonrpc\":\"2.0\",\"id\":%s,\"method\":\"tools/call\",\"params\":{\"name\":\"%s\",\"arguments\":{\"id\":\"c%llu\","
                 "\"token\":\"%s\",\"trace\":\"%s\",\"pad\":\"%s\"}," META "}}",
                 c->id, tool, (unsigned long long)seen.sent, c->token, c->trace, c->pad);
    buffer_print(&head,
                 "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: bench\r\nAccept: application/json, text/event-stream\r\n"
                 "Content-Type: application/json\r\nMCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: %s\r\n"
                 "Authorization: Bearer %s\r\ntraceparent: 00-%s-%.16s-01\r\nContent-Length: %zu\r\n\r\n",
                 asked.path, asked.port, tool, asked.authorization, c->trace, c->token, body.used);
    buffer_add(&head, body.at, body.used);
    c->busy = 1;
    c->counts = counts && !c->canary;
    c->from = from ? from : now_ns();
    seen.sent++;
    if (send(c->descriptor, head.at, head.used, MSG_NOSIGNAL) != (ssize_t)head.used) {
        seen.lost++;
        complain("a request could not be sent", (slice){"", 0});
        reconnect(c);
    }
}

/* Whether the body is this call's echo. */
static int echoes(connection *c, slice message) {
    static char text[8192];
    slice value, result, first, inner, raw, arguments;
    long size;
    if (!json_member(message, "id", &value) || !slice_is(value, c->id)) return 0;
    if (json_member(message, "error", &value) || !json_member(message, "result", &result)) return 0;
    if (json_member(result, "isError", &value) && !slice_is(value, "false")) return 0;
    if (!json_member(result, "content", &value) || !json_first(value, &first) || !json_member(first, "text", &raw)) return 0;
    size = json_text(raw, text, sizeof text);
    if (size < 0) return 0;
    inner = (slice){text, (size_t)size};
    return json_member(inner, "name", &value) && slice_quotes(value, c->canary ? c->canary : asked.tool) &&
           json_member(inner, "arguments", &arguments) && json_member(arguments, "token", &value) && slice_quotes(value, c->token) &&
           json_member(arguments, "trace", &value) && slice_quotes(value, c->trace) && json_member(arguments, "pad", &value) &&
           slice_quotes(value, c->pad);
}

static int refuses(connection *c, slice message) {
    slice value, result, meta;
    return json_member(message, "id", &value) && slice_is(value, c->id) && json_member(message, "result", &result) &&
           json_member(result, "isError", &value) && slice_is(value, "true") && json_member(result, "_meta", &meta) &&
           json_member(meta, "dev.outrider/refusal", &value) && !memmem(message.at, message.size, c->token, 32);
}

static void judge(connection *c, int status, slice body) {
    const char *expect = c->canary ? asked.expect : "echo";
    uint64_t now = now_ns();
    int right;
    if (!strcmp(expect, "403")) right = status == 403 && !memmem(body.at, body.size, c->token, 32);
    else if (!strcmp(expect, "refusal")) right = status == 200 && refuses(c, body);
    else right = status == 200 && echoes(c, body);
    seen.answered++;
    if (!right) {
        seen.wrong++;
        complain(c->canary ? "a canary did not end as it must" : "a wrong answer", body);
    } else if (!strcmp(expect, "echo")) seen.echoed++;
    else seen.refused++;
    if (c->counts && right) sample(now - c->from);
    c->busy = 0;
}

/* Joins the chunks of a whole chunked body in place. Bytes taken from the wire, 0 when more must come, -1 when it is broken. */
static long dechunked(char *at, size_t size, slice *body) {
    size_t read = 0, kept = 0;
    for (;;) {
        char *line = memmem(at + read, size - read, "\r\n", 2);
        size_t chunk;
        if (!line) return 0;
        chunk = strtoul(at + read, NULL, 16);
        read = (size_t)(line - at) + 2;
        if (chunk > (16u << 20)) return -1;
        if (size - read < chunk + 2) return 0;
        if (chunk == 0) break;
        read += chunk + 2;
        kept += chunk;
    }
    read += 2;
    char *into = at, *from = at;
    for (size_t left = kept; left;) {
        size_t chunk = strtoul(from, &from, 16);
        from = strstr(from, "\r\n") + 2;
        memmove(into, from, chunk);
        into += chunk;
        from += chunk + 2;
        left -= chunk;
    }
    *body = (slice){at, kept};
    return (long)read;
}

static void lose(connection *c, const char *why) {
    if (c->busy) {
        seen.lost++;
        complain(why, (slice){c->in.at, c->in.used});
    }
    reconnect(c);
}

/* Reads what came; 1 when a call has been answered. */
static int readable(connection *c) {
    slice head, value, body;
    long length, taken;
    int last;
    ssize_t n;
    buffer_reserve(&c->in, 65536);
    n = recv(c->descriptor, c->in.at + c->in.used, c->in.room - c->in.used - 1, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return 0;
    if (n <= 0) {
        lose(c, "the connection was closed before its answer");
        return 1;
    }
    c->in.used += (size_t)n;
    c->in.at[c->in.used] = 0;
    head = (slice){c->in.at, http_head(c->in.at, c->in.used)};
    if (!head.size) return 0;
    if (!c->busy) {
        seen.wrong++;
        complain("an answer that nobody asked for", (slice){c->in.at, c->in.used});
        reconnect(c);
        return 1;
    }
    last = http_header(head, "connection", &value) && !strncasecmp(value.at, "close", 5);
    length = http_length(head);
    if (length >= 0) {
        if (c->in.used - head.size < (size_t)length) return 0;
        body = (slice){head.at + head.size, (size_t)length};
        taken = length;
    } else {
        slice scratch = {c->in.at + head.size, c->in.used - head.size};
        if (memmem(scratch.at, scratch.size, "0\r\n\r\n", 5) == NULL) return 0;
        taken = dechunked(c->in.at + head.size, scratch.size, &body);
        if (taken == 0) return 0;
        if (taken < 0) {
            lose(c, "a body that cannot be read");
            return 1;
        }
    }
    judge(c, (int)strtol(head.at + 9, NULL, 10), body);
    if (last || c->in.used != head.size + (size_t)taken) reconnect(c);
    c->in.used = 0;
    return 1;
}

static int by_size(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static double percentile(double share) {
    if (!samples_used) return 0;
    return (double)samples[(size_t)(share * (double)(samples_used - 1) + 0.5)] / 1000.0;
}

static void report(double seconds) {
    qsort(samples, samples_used, sizeof *samples, by_size);
    printf("{\"sent\":%llu,\"answered\":%llu,\"echoed\":%llu,\"refused\":%llu,\"canaries\":%llu,\"wrong\":%llu,\"lost\":%llu,"
           "\"reconnects\":%llu,\"backlog_max\":%llu,\"samples\":%zu,\"seconds\":%.6f,\"per_second\":%.3f,\"p50\":%.2f,\"p95\":%.2f,"
           "\"p99\":%.2f,\"max\":%.2f,\"complaint\":\"%s\"}\n",
           (unsigned long long)seen.sent, (unsigned long long)seen.answered, (unsigned long long)seen.echoed,
           (unsigned long long)seen.refused, (unsigned long long)seen.canaries, (unsigned long long)seen.wrong,
           (unsigned long long)seen.lost, (unsigned long long)seen.reconnects, (unsigned long long)seen.backlog_max, samples_used,
           seconds, (double)seen.measured / seconds, percentile(0.5), percentile(0.95), percentile(0.99), percentile(1.0),
           seen.complaint);
}

static int outstanding(void) {
    int busy = 0;
    for (int i = 0; i < asked.connections; i++) busy += pool[i].busy;
    return busy;
}

/* One turn: waits for answers until `until` and reads them. `again` sends the next call of a closed loop at once. */
static void turn(uint64_t stop, uint64_t warm, int again) {
    struct epoll_event events[CONNECTIONS_MAX];
    int ready = epoll_wait(poller, events, CONNECTIONS_MAX, 100);
    for (int i = 0; i < ready; i++) {
        connection *c = events[i].data.ptr;
        uint64_t now;
        if (!c) continue; /* the timer: an edge, re-armed by the next settime */
        if (!readable(c)) continue;
        now = now_ns();
        if (now >= warm && now < stop) seen.measured++;
        if (again && now < stop && !c->busy) call(c, 0, now >= warm);
    }
}

static void closed_loop(uint64_t warm, uint64_t stop) {
    for (int i = 0; i < asked.connections; i++) call(&pool[i], 0, asked.warm_ns == 0);
    while (now_ns() < stop) turn(stop, warm, 1);
}

static void open_loop(uint64_t start, uint64_t warm, uint64_t stop) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = NULL};
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    double interval = 1e9 / asked.rate;
    uint64_t issued = 0, total = (uint64_t)((double)(stop - start) / interval);
    epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event);
    while (issued < total && now_ns() < stop + GRACE_NS) {
        uint64_t now = now_ns(), due = (uint64_t)((double)(now - start) / interval) + 1;
        uint64_t next;
        struct itimerspec at = {0};
        if (due > total) due = total;
        for (int i = 0; i < asked.connections && issued < due; i++) {
            uint64_t from = start + (uint64_t)((double)issued * interval);
            if (pool[i].busy) continue;
            call(&pool[i], from, from >= warm);
            issued++;
        }
        if (due - issued > seen.backlog_max) seen.backlog_max = due - issued;
        next = start + (uint64_t)((double)due * interval);
        at.it_value.tv_sec = (time_t)(next / 1000000000ull);
        at.it_value.tv_nsec = (long)(next % 1000000000ull);
        timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
        turn(stop, warm, 0);
    }
    close(timer);
}

static void option(const char *name, char *value) {
    if (!strcmp(name, "--port")) asked.port = atoi(value);
    else if (!strcmp(name, "--path")) asked.path = value;
    else if (!strcmp(name, "--authorization")) asked.authorization = value;
    else if (!strcmp(name, "--connections")) asked.connections = atoi(value);
    else if (!strcmp(name, "--mode")) asked.open = !strcmp(value, "open");
    else if (!strcmp(name, "--rate")) asked.rate = atof(value);
    else if (!strcmp(name, "--seconds")) asked.run_ns = (uint64_t)(atof(value) * 1e9);
    else if (!strcmp(name, "--warm")) asked.warm_ns = (uint64_t)(atof(value) * 1e9);
    else if (!strcmp(name, "--seed")) asked.seed = strtoull(value, NULL, 10);
    else if (!strcmp(name, "--canary-every")) asked.canary_every = strtoull(value, NULL, 10);
    else if (!strcmp(name, "--canary-expect")) asked.expect = value;
    else if (!strcmp(name, "--canaries")) {
        for (char *each = strtok(value, ","); each && asked.canary_count < CANARIES_MAX; each = strtok(NULL, ","))
            asked.canaries[asked.canary_count++] = each;
    } else {
        fprintf(stderr, "load: unknown option %s\n", name);
        exit(2);
    }
}

int main(int count_of, char **given) {
    uint64_t start, warm, stop;
    for (int i = 1; i + 1 < count_of; i += 2) option(given[i], given[i + 1]);
    if (asked.port <= 0 || asked.connections < 1 || asked.connections > CONNECTIONS_MAX || (asked.open && asked.rate <= 0) ||
        (asked.canary_every && !asked.canary_count) || strlen(asked.path) > 512) {
        fputs("load: needs --port, 1 to 1024 --connections, --rate with --mode open, --canaries with --canary-every\n", stderr);
        return 2;
    }
    poller = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < asked.connections; i++) connect_one(&pool[i]);
    start = now_ns();
    warm = start + asked.warm_ns;
    stop = warm + asked.run_ns;
    if (asked.open) open_loop(start, warm, stop);
    else closed_loop(warm, stop);
    while (outstanding() && now_ns() < stop + GRACE_NS) turn(stop, warm, 0);
    seen.lost += (uint64_t)outstanding();
    if (outstanding()) complain("no answer within ten seconds", (slice){"", 0});
    report((double)asked.run_ns / 1e9);
    return 0;
}
