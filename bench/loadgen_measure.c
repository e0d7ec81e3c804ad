#include "loadgen_measure.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("loadgen: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

uint64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* utime and stime of /proc/PID/stat, in clock ticks. The command name, field 2, may hold spaces
 * and brackets, so counting starts after the last bracket. */
static void stat_ticks(pid_t pid, uint64_t *user, uint64_t *system)
{
    char path[64], text[2048];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        fail("process %d is gone: the server died during the run, see its log", (int)pid);
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = 0;
    const char *rest = strrchr(text, ')');
    if (rest == NULL
        || sscanf(rest + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64,
                  user, system)
               != 2)
        fail("cannot read %s", path);
}

struct cpu_time process_cpu(pid_t pid)
{
    struct cpu_time used = {0, 0, 0};
    if (pid <= 0)
        return used;
    uint64_t tick = NS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK);
    stat_ticks(pid, &used.user, &used.system);
    used.user *= tick;
    used.system *= tick;
    clockid_t clock;
    struct timespec total;
    if (clock_getcpuclockid(pid, &clock) == 0 && clock_gettime(clock, &total) == 0)
        used.total = (uint64_t)total.tv_sec * NS_PER_S + (uint64_t)total.tv_nsec;
    else
        used.total = used.user + used.system;
    return used;
}

struct cpu_time cpu_between(struct cpu_time before, struct cpu_time after)
{
    return (struct cpu_time){after.total - before.total, after.user - before.user,
                             after.system - before.system};
}

/* The number behind `field` in a "Name:   123 kB" file; 0 if file or field is missing. */
static long kib_field(const char *path, const char *field)
{
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return 0;
    char line[256];
    long value = 0;
    while (fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, field, strlen(field)) == 0) {
            value = atol(line + strlen(field));
            break;
        }
    fclose(file);
    return value;
}

struct memory process_memory(pid_t pid)
{
    struct memory used = {0, 0, kib_field("/proc/meminfo", "Slab:")};
    if (pid > 0) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);
        used.rss = kib_field(path, "Rss:");
        used.pss = kib_field(path, "Pss:");
    }
    return used;
}

/* Values below 2^SUB_BITS have a bucket each. Above, the highest bit gives the group and the
 * SUB_BITS bits behind it the place in the group. */
static unsigned bucket_of(uint64_t ns)
{
    if (ns < 1u << HISTOGRAM_SUB_BITS)
        return (unsigned)ns;
    unsigned shift = 63 - (unsigned)__builtin_clzll(ns) - HISTOGRAM_SUB_BITS;
    return (shift << HISTOGRAM_SUB_BITS) + (unsigned)(ns >> shift);
}

static uint64_t bucket_top(unsigned bucket)
{
    if (bucket < 2u << HISTOGRAM_SUB_BITS)
        return bucket;
    unsigned shift = (bucket >> HISTOGRAM_SUB_BITS) - 1;
    uint64_t mantissa = bucket - (shift << HISTOGRAM_SUB_BITS);
    return ((mantissa + 1) << shift) - 1;
}

void histogram_add(struct histogram *histogram, uint64_t ns)
{
    histogram->buckets[bucket_of(ns)]++;
    histogram->count++;
    histogram->sum += (double)ns;
    if (ns > histogram->max)
        histogram->max = ns;
}

uint64_t histogram_quantile(const struct histogram *histogram, double q)
{
    uint64_t seen = 0;
    double wanted = q * (double)histogram->count;
    for (unsigned bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
        seen += histogram->buckets[bucket];
        if (seen > 0 && (double)seen >= wanted) {
            uint64_t top = bucket_top(bucket);
            return top < histogram->max ? top : histogram->max;
        }
    }
    return histogram->max;
}

static bool first_member;

static void json_name(const char *name)
{
    printf(first_member ? "\"%s\":" : ",\"%s\":", name);
    first_member = false;
}

void json_begin(void)
{
    putchar('{');
    first_member = true;
}

void json_end(void)
{
    puts("}");
    fflush(stdout);
}

void json_text(const char *name, const char *value)
{
    json_name(name);
    putchar('"');
    for (; *value; value++) /* our own texts: quotes and control characters become blanks */
        putchar(*value == '"' || *value == '\\' || (unsigned char)*value < ' ' ? ' ' : *value);
    putchar('"');
}

void json_count(const char *name, uint64_t value)
{
    json_name(name);
    printf("%" PRIu64, value);
}

void json_number(const char *name, double value)
{
    json_name(name);
    printf("%.6g", value);
}

void json_histogram(const char *name, const struct histogram *histogram)
{
    static const char *const percentiles[] = {"0",  "10", "20", "30",   "40",   "50",    "60",
                                              "70", "75", "80", "90",   "95",   "97.5",  "99",
                                              "99.5", "99.75", "99.9", "99.95", "99.99", "100"};
    json_name(name);
    double count = histogram->count ? (double)histogram->count : 1;
    printf("{\"count\":%" PRIu64 ",\"mean_us\":%.2f,\"max_us\":%.2f,\"us\":{", histogram->count,
           histogram->sum / count / 1e3, (double)histogram->max / 1e3);
    for (unsigned i = 0; i < sizeof percentiles / sizeof *percentiles; i++)
        printf("%s\"%s\":%.2f", i ? "," : "", percentiles[i],
               (double)histogram_quantile(histogram, atof(percentiles[i]) / 100) / 1e3);
    printf("}}");
}

void json_server_cpu(struct cpu_time used)
{
    json_count("server_cpu_ns", used.total);
    json_count("server_user_ns", used.user);
    json_count("server_system_ns", used.system);
}
