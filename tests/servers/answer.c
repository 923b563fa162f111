/* An answer of HTTP/1.1, fed piece by piece. */
#define _GNU_SOURCE
#include "answer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* The value of a header in a NUL-terminated head, or NULL. */
static const char *header(const char *head, const char *name)
{
    size_t len = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, len) == 0 && line[len] == ':')
            return line + len + 1 + strspn(line + len + 1, " \t");
    }
    return NULL;
}

static enum part after_head(struct answer *a)
{
    int minor = 0;
    if (sscanf(a->text, "HTTP/1.%d %d", &minor, &a->status) != 2)
        return NO_HTTP;
    a->len = 0;
    if (a->status < 200 && a->status != 101)
        return HEAD; /* another one follows */
    const char *length = header(a->text, "Content-Length"), *coding = header(a->text, "Transfer-Encoding");
    const char *wish = header(a->text, "Connection");
    a->close = wish ? strncasecmp(wish, "close", 5) == 0 : minor == 0;
    if (a->status == 204 || a->status == 304)
        return WHOLE;
    if (coding && strncasecmp(coding, "chunked", 7) == 0)
        return CHUNK_SIZE;
    if (!length) {
        a->close = 1;
        return TO_END;
    }
    a->left = strtoull(length, NULL, 10);
    return a->left ? BODY : WHOLE;
}

/* A line of chunked coding is complete. */
static enum part after_line(struct answer *a)
{
    char *end;
    size_t len = a->len;
    a->text[a->len] = 0;
    a->len = 0;
    switch (a->part) {
    case CHUNK_SIZE:
        a->left = strtoull(a->text, &end, 16);
        return end == a->text ? NO_HTTP : a->left ? CHUNK : TRAILER;
    case CHUNK_END:
        return len == 0 ? CHUNK_SIZE : NO_HTTP;
    case TRAILER:
        return len == 0 ? WHOLE : TRAILER;
    default:
        return NO_HTTP;
    }
}

static void keep_body(struct answer *a, const char *data, size_t n)
{
    size_t room = sizeof a->body - 1 - a->begun;
    if (n > room)
        n = room;
    memcpy(a->body + a->begun, data, n);
    a->begun += n;
}

size_t feed(struct answer *a, const char *data, size_t n)
{
    size_t at = 0;
    a->bytes += n;
    while (at < n && a->part != WHOLE && a->part != NO_HTTP) {
        if (a->part == BODY || a->part == CHUNK || a->part == TO_END) {
            size_t take = n - at;
            if (a->part != TO_END && take > a->left)
                take = (size_t)a->left;
            keep_body(a, data + at, take);
            at += take;
            if (a->part != TO_END && (a->left -= take) == 0)
                a->part = a->part == BODY ? WHOLE : CHUNK_END;
            continue;
        }
        char c = data[at++];
        if (a->len == sizeof a->text - 1) {
            a->part = NO_HTTP;
        } else if (a->part == HEAD) {
            a->text[a->len++] = c;
            if (c == '\n' && a->len >= 4 && memcmp(a->text + a->len - 4, "\r\n\r\n", 4) == 0) {
                a->text[a->len - 2] = 0;
                a->part = after_head(a);
            }
        } else if (c == '\n') {
            a->part = after_line(a);
        } else if (c != '\r') {
            a->text[a->len++] = c;
        }
    }
    return at;
}

void expect_answer(struct answer *a)
{
    memset(a, 0, offsetof(struct answer, text));
    memset(a->body, 0, sizeof a->body);
}
