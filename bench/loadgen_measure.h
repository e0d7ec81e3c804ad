/* Clocks, /proc, histograms and the one JSON line that a run prints. */
#ifndef LOADGEN_MEASURE_H
#define LOADGEN_MEASURE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define NS_PER_S 1000000000ull
#define NS_PER_US 1000ull

/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t monotonic_ns(void);

/* CPU used by a whole process, all threads, in nanoseconds. `total` is exact (the process CPU
 * clock); `user` and `system` split it as /proc/PID/stat does, by 10 ms ticks. */
struct cpu_time {
    uint64_t total, user, system;
};
struct cpu_time process_cpu(pid_t pid);
struct cpu_time cpu_between(struct cpu_time before, struct cpu_time after);

/* Memory of a process from /proc/PID/smaps_rollup, and what the kernel holds in slabs (for the
 * sockets of both ends), in KiB. */
struct memory {
    long rss, pss, slab;
};
struct memory process_memory(pid_t pid);

/* Histogram of durations: every power of two is cut into 2^SUB_BITS equal buckets, so a value
 * read back is at most 1/64 = 1.6 % too high, from 64 ns to hours, in constant memory. */
#define HISTOGRAM_SUB_BITS 6
#define HISTOGRAM_BUCKETS ((64 - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS)
struct histogram {
    uint64_t count, max;
    double sum;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};
void histogram_add(struct histogram *histogram, uint64_t ns);
/* Upper edge in ns of the bucket that holds quantile `q` (0..1); 0 if nothing was added. */
uint64_t histogram_quantile(const struct histogram *histogram, double q);

/* The JSON object printed to stdout: json_begin, members, json_end. */
void json_begin(void);
void json_end(void);
void json_text(const char *name, const char *value);
void json_count(const char *name, uint64_t value);
void json_number(const char *name, double value);
/* {"count":…,"mean_us":…,"max_us":…,"us":{"50":…,"99":…}}: percentiles in µs. */
void json_histogram(const char *name, const struct histogram *histogram);
/* server_cpu_ns, server_user_ns, server_system_ns. */
void json_server_cpu(struct cpu_time used);

/* Ends the program with one sentence on stderr. */
__attribute__((noreturn, format(printf, 1, 2))) void fail(const char *format, ...);

#endif
