/* SPDX-License-Identifier: Apache-2.0 */
/* A JSON reader for the two benchmark programs: finds members of objects in place and never copies. It accepts what is
 * well formed enough to walk over; both programs compare values byte for byte, so a lax reader cannot turn a wrong answer
 * into a right one. */
#ifndef BENCH_JSON_H
#define BENCH_JSON_H

#include <stddef.h>
#include <string.h>

#define JSON_DEPTH_MAX 64

typedef struct {
    const char *at;
    size_t size;
} slice;

static inline const char *json_space(const char *at, const char *end) {
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r')) at++;
    return at;
}

/* The end of the string whose opening quote is at `at`, or NULL. */
static inline const char *json_string_end(const char *at, const char *end) {
    for (at++; at < end; at++) {
        if (*at == '\\') at++;
        else if (*at == '"') return at + 1;
    }
    return NULL;
}

/* The end of the value at `at`, or NULL when there is none. */
static inline const char *json_value_end(const char *at, const char *end) {
    int depth = 0;
    if (at >= end) return NULL;
    if (*at == '"') return json_string_end(at, end);
    if (*at != '{' && *at != '[') {
        const char *from = at;
        while (at < end && !strchr(",]} \t\r\n", *at)) at++;
        return at > from ? at : NULL;
    }
    while (at < end) {
        char c = *at;
        if (c == '"') {
            at = json_string_end(at, end);
            if (!at) return NULL;
            continue;
        }
        if (c == '{' || c == '[') {
            if (++depth > JSON_DEPTH_MAX) return NULL;
        } else if (c == '}' || c == ']') {
            if (--depth == 0) return at + 1;
        }
        at++;
    }
    return NULL;
}

/* Finds member `key` of the object `from`; 1 when found. The value is its raw text. */
static inline int json_member(slice from, const char *key, slice *value) {
    const char *end = from.at + from.size, *at = json_space(from.at, end);
    size_t key_size = strlen(key);
    if (at >= end || *at != '{') return 0;
    at = json_space(at + 1, end);
    while (at < end && *at == '"') {
        const char *name = at + 1, *after = json_string_end(at, end), *last;
        size_t name_size;
        if (!after) return 0;
        name_size = (size_t)(after - 1 - name);
        at = json_space(after, end);
        if (at >= end || *at != ':') return 0;
        at = json_space(at + 1, end);
        last = json_value_end(at, end);
        if (!last) return 0;
        if (name_size == key_size && memcmp(name, key, key_size) == 0) {
            value->at = at;
            value->size = (size_t)(last - at);
            return 1;
        }
        at = json_space(last, end);
        if (at < end && *at == ',') at = json_space(at + 1, end);
    }
    return 0;
}

/* The first element of the array `from`; 1 when there is one. */
static inline int json_first(slice from, slice *value) {
    const char *end = from.at + from.size, *at = json_space(from.at, end), *last;
    if (at >= end || *at != '[') return 0;
    at = json_space(at + 1, end);
    last = json_value_end(at, end);
    if (!last || *at == ']') return 0;
    value->at = at;
    value->size = (size_t)(last - at);
    return 1;
}

/* Undoes the escapes of a raw string; bytes written, or -1 when it is no string, too long, or has escapes we never send. */
static inline long json_text(slice raw, char *into, size_t room) {
    size_t used = 0;
    if (raw.size < 2 || raw.at[0] != '"') return -1;
    for (const char *at = raw.at + 1, *end = raw.at + raw.size - 1; at < end; at++) {
        char c = *at;
        if (c == '\\') {
            c = *++at;
            if (c == 'n') c = '\n';
            else if (c != '"' && c != '\\' && c != '/') return -1;
        }
        if (used == room) return -1;
        into[used++] = c;
    }
    return (long)used;
}

static inline int slice_is(slice value, const char *text) {
    return value.size == strlen(text) && memcmp(value.at, text, value.size) == 0;
}

/* Whether `value` is the string `text`, quotes included in `value`. */
static inline int slice_quotes(slice value, const char *text) {
    size_t size = strlen(text);
    return value.size == size + 2 && value.at[0] == '"' && memcmp(value.at + 1, text, size) == 0;
}

#endif
