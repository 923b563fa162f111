/* An answer of HTTP/1.1, fed piece by piece. */
#ifndef ANSWER_H
#define ANSWER_H

#include <stddef.h>

/* TO_END: the body has no length, the end of the connection is its end. */
enum part { HEAD, BODY, TO_END, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER, WHOLE, NO_HTTP };

enum { HEAD_MAX = 16384 };

struct answer {
    enum part part;
    int status, close;        /* close: the server says that it will */
    size_t len, begun;        /* of text; of body */
    unsigned long long left;  /* of the body or of the chunk */
    unsigned long long bytes; /* that have come, of any part */
    char text[HEAD_MAX];      /* the head, then a line of chunked coding */
    char body[32];            /* how the body begins */
};

/* Begins anew. */
void expect_answer(struct answer *a);

/* Takes what belongs to this answer; returns how much that was. */
size_t feed(struct answer *a, const char *data, size_t n);

#endif
