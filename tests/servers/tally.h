/* What load.c counts, and the line that says it. */
#ifndef TALLY_H
#define TALLY_H

#include <stdint.h>

/* Each request ends in one of those before REUSED; those from STATUS on to it are failures. */
enum count { FRESH_OK, REUSED_OK, STATUS, REFUSED, CONNECT, FRESH, HALF, TIMEOUT, REUSED, POLITE, COUNTS };

extern const char *const count_names[COUNTS];
extern long counts[COUNTS];

/* Of an answer. */
void count_latency(uint64_t us);

/* Who answered, if the body says so. */
void count_pid(const char *body);

/* One line to stdout. */
void print_counts(void);

/* So many requests failed. */
long failures(void);

#endif
