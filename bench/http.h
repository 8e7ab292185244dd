/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/1.1 heads for the two benchmark programs: where one ends, what a header says, and a growing byte buffer. */
#ifndef BENCH_HTTP_H
#define BENCH_HTTP_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "json.h"

typedef struct {
    char *at;
    size_t used, room;
} buffer;

static inline void buffer_reserve(buffer *b, size_t more) {
    if (b->used + more <= b->room) return;
    while (b->room < b->used + more) b->room = b->room ? b->room * 2 : 4096;
    b->at = realloc(b->at, b->room);
    if (!b->at) {
        fputs("out of memory\n", stderr);
        exit(70);
    }
}

static inline void buffer_add(buffer *b, const char *from, size_t size) {
    buffer_reserve(b, size);
    memcpy(b->at + b->used, from, size);
    b->used += size;
}

__attribute__((format(printf, 2, 3))) static inline void buffer_print(buffer *b, const char *format, ...) {
    va_list list;
    int size;
    buffer_reserve(b, 512);
    va_start(list, format);
    size = vsnprintf(b->at + b->used, b->room - b->used, format, list);
    va_end(list);
    if ((size_t)size >= b->room - b->used) {
        buffer_reserve(b, (size_t)size + 1);
        va_start(list, format);
        vsnprintf(b->at + b->used, b->room - b->used, format, list);
        va_end(list);
    }
    b->used += (size_t)size;
}

static inline void buffer_drop(buffer *b, size_t size) {
    memmove(b->at, b->at + size, b->used - size);
    b->used -= size;
}

/* Bytes of the head with its empty line, or 0 when it is not whole yet. */
static inline size_t http_head(const char *at, size_t size) {
    const char *end = memmem(at, size, "\r\n\r\n", 4);
    return end ? (size_t)(end - at) + 4 : 0;
}

/* The value of a header in a head; 1 when it is there. */
static inline int http_header(slice head, const char *name, slice *value) {
    size_t size = strlen(name);
    const char *end = head.at + head.size, *at = memchr(head.at, '\n', head.size);
    while (at && ++at < end) {
        const char *stop = memchr(at, '\r', (size_t)(end - at));
        if (!stop) return 0;
        if ((size_t)(stop - at) > size && at[size] == ':' && strncasecmp(at, name, size) == 0) {
            at += size + 1;
            while (at < stop && *at == ' ') at++;
            value->at = at;
            value->size = (size_t)(stop - at);
            return 1;
        }
        at = memchr(stop, '\n', (size_t)(end - stop));
    }
    return 0;
}

/* The body's length as the head says it, or -1 when it does not. */
static inline long http_length(slice head) {
    slice value;
    return http_header(head, "content-length", &value) ? strtol(value.at, NULL, 10) : -1;
}

#endif
