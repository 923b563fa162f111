/* What load.c counts, and the line that says it. */
#include "tally.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const count_names[COUNTS] = { "fresh_ok", "reused_ok", "status", "refused", "connect", "fresh",
                                          "half", "timeout", "reused", "polite" };
long counts[COUNTS];

/* Latencies in us: exact below 32, then 32 steps to each power of two. */
enum { STEPS = 32, STEP_BITS = 5, BUCKETS = STEPS * 60 };
static long buckets[BUCKETS];
static uint64_t slowest;

void count_latency(uint64_t us)
{
    unsigned high = us < STEPS ? 0 : 63u - (unsigned)__builtin_clzll(us) - STEP_BITS;
    buckets[high * STEPS + (us >> high)]++;
    if (us > slowest)
        slowest = us;
}

static uint64_t percentile(double share)
{
    long all = 0, seen = 0;
    for (int i = 0; i < BUCKETS; i++)
        all += buckets[i];
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += buckets[i];
        if (seen > 0 && (double)seen >= share * (double)all) {
            unsigned high = i < 2 * STEPS ? 0 : i / STEPS - 1;
            uint64_t edge = ((uint64_t)(i - high * STEPS + 1) << high) - 1;
            return edge < slowest ? edge : slowest;
        }
    }
    return 0;
}

static long *pids;
static size_t npids;

void count_pid(const char *body)
{
    static size_t last;
    char *end;
    if (strncmp(body, "PID ", 4) != 0 && strncmp(body, "pid=", 4) != 0)
        return;
    long pid = strtol(body + 4, &end, 10);
    if (end == body + 4 || (last < npids && pids[last] == pid))
        return;
    for (last = 0; last < npids; last++)
        if (pids[last] == pid)
            return;
    long *more = realloc(pids, (npids + 1) * sizeof *pids);
    if (!more)
        return; /* the number is a lower bound then */
    pids = more;
    pids[npids++] = pid;
}

void print_counts(void)
{
    long requests = 0;
    for (int i = 0; i < REUSED; i++)
        requests += counts[i];
    printf("requests=%ld", requests);
    for (int i = 0; i < COUNTS; i++)
        printf(" %s=%ld", count_names[i], counts[i]);
    printf(" p50_us=%llu p99_us=%llu max_us=%llu pids=%zu\n", (unsigned long long)percentile(0.5),
           (unsigned long long)percentile(0.99), (unsigned long long)slowest, npids);
    fflush(stdout);
}

long failures(void)
{
    long all = 0;
    for (int i = STATUS; i < REUSED; i++)
        all += counts[i];
    return all;
}
