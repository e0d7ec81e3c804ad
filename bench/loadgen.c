/* loadgen: real DERP clients against one relay, in one thread.
 *
 *     cc -O2 loadgen.c loadgen_*.c -o loadgen -lssl -lcrypto -lsodium
 *     taskset -c 1 ./loadgen pairs --port 9000 --pairs 10 --records 16 --server PID
 *
 * Prints one JSON object on one line, see README.rst; errors go to stderr with exit code 1.
 * `loadgen --help` lists modes and options. */
#include <getopt.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "loadgen_modes.h"

static const char usage[] =
    "usage: loadgen MODE --port PORT [options]\n"
    "\n"
    "modes\n"
    "  pairs        closed loop: sender i to receiver i, --window packets in flight per pair\n"
    "  open         open loop: each sender writes all its socket takes\n"
    "  paced        --rate packets/s in all\n"
    "  overload     like paced, for rates the server cannot carry\n"
    "  mix          every sender to every receiver in turn; closed loop unless --window 0\n"
    "  latency      one packet to and fro; with --rate beside a paced load of --pairs,\n"
    "               with --flood also beside clients that send all they can\n"
    "  connections  new clients: connect, TLS, upgrade, login, close; --workers at a time\n"
    "  idle         --clients silent clients: memory and CPU; --busy S of traffic, then again\n"
    "\n"
    "where\n"
    "  --address IP     server's IPv4 address (127.0.0.1)\n"
    "  --port N         server's TLS port\n"
    "  --server PID     whose CPU and memory are reported (none)\n"
    "  --name NAME      SNI and Host (no SNI)\n"
    "  --fast-start     log in without the HTTP 101 answer\n"
    "  --cipher SUITE   TLS 1.3 suite (TLS_AES_128_GCM_SHA256)\n"
    "  --groups LIST    key exchange groups offered (X25519)\n"
    "how much\n"
    "  --seconds S  measured (2)       --warmup S    before that (0.5)\n"
    "  --pairs N    (1)                --size BYTES  of a packet, 16..65536 (1200)\n"
    "  --records N  per write (1)      --window N    (16 in closed loops)\n"
    "  --rate N     packets/s (20000 if paced)\n"
    "  --gap-us N   after a ping (0)   --workers N   (8)\n"
    "  --clients N  (1000)             --busy S      (0)\n"
    "  --flood N    (0)\n";

enum option_id {
    OPTION_ADDRESS = 256, OPTION_PORT, OPTION_SERVER, OPTION_NAME, OPTION_FAST_START,
    OPTION_CIPHER, OPTION_GROUPS, OPTION_SECONDS, OPTION_WARMUP, OPTION_PAIRS, OPTION_SIZE,
    OPTION_RECORDS, OPTION_WINDOW, OPTION_RATE, OPTION_GAP, OPTION_WORKERS, OPTION_CLIENTS,
    OPTION_BUSY, OPTION_FLOOD, OPTION_HELP,
};

static const struct option option_table[] = {
    {"address", required_argument, NULL, OPTION_ADDRESS},
    {"port", required_argument, NULL, OPTION_PORT},
    {"server", required_argument, NULL, OPTION_SERVER},
    {"name", required_argument, NULL, OPTION_NAME},
    {"fast-start", no_argument, NULL, OPTION_FAST_START},
    {"cipher", required_argument, NULL, OPTION_CIPHER},
    {"groups", required_argument, NULL, OPTION_GROUPS},
    {"seconds", required_argument, NULL, OPTION_SECONDS},
    {"warmup", required_argument, NULL, OPTION_WARMUP},
    {"pairs", required_argument, NULL, OPTION_PAIRS},
    {"size", required_argument, NULL, OPTION_SIZE},
    {"records", required_argument, NULL, OPTION_RECORDS},
    {"window", required_argument, NULL, OPTION_WINDOW},
    {"rate", required_argument, NULL, OPTION_RATE},
    {"gap-us", required_argument, NULL, OPTION_GAP},
    {"workers", required_argument, NULL, OPTION_WORKERS},
    {"clients", required_argument, NULL, OPTION_CLIENTS},
    {"busy", required_argument, NULL, OPTION_BUSY},
    {"flood", required_argument, NULL, OPTION_FLOOD},
    {"help", no_argument, NULL, OPTION_HELP},
    {0},
};

/* A mode and what it sets unless told otherwise. */
static const struct mode {
    const char *name;
    void (*measure)(struct generator *, const struct settings *);
    unsigned window;
    double rate;
    bool mix;
} modes[] = {
    {"pairs", measure_relay, 16, 0, false},
    {"open", measure_relay, 0, 0, false},
    {"paced", measure_relay, 0, 20000, false},
    {"overload", measure_relay, 0, 20000, false},
    {"mix", measure_relay, 16, 0, true},
    {"latency", measure_latency, 0, 0, false},
    {"connections", measure_connections, 0, 0, false},
    {"idle", measure_idle, 0, 0, false},
};

struct command_line {
    struct settings settings;
    const char *address, *name, *cipher, *groups;
    int port;
    bool fast_start;
};

/* A number at least `least` and at most `most`, or the end. */
static double number(const char *option, double least, double most)
{
    char *end;
    double value = strtod(optarg, &end);
    if (end == optarg || *end != 0 || !(value >= least && value <= most))
        fail("--%s %s: must be a number from %g to %g", option, optarg, least, most);
    return value;
}

static void take_option(struct command_line *line, int id, const char *name)
{
    struct settings *settings = &line->settings;
    switch (id) {
    case OPTION_ADDRESS: line->address = optarg; break;
    case OPTION_PORT: line->port = (int)number(name, 1, 65535); break;
    case OPTION_SERVER: settings->server = (pid_t)number(name, 1, 1 << 30); break;
    case OPTION_NAME: line->name = optarg; break;
    case OPTION_FAST_START: line->fast_start = true; break;
    case OPTION_CIPHER: line->cipher = optarg; break;
    case OPTION_GROUPS: line->groups = optarg; break;
    case OPTION_SECONDS: settings->seconds = number(name, 0.01, 1e6); break;
    case OPTION_WARMUP: settings->warmup = number(name, 0, 1e6); break;
    case OPTION_PAIRS: settings->load.pairs = (unsigned)number(name, 1, 4000); break;
    case OPTION_SIZE:
        settings->load.size = (unsigned)number(name, PACKET_PREFIX_BYTES, MAX_PACKET_BYTES);
        break;
    case OPTION_RECORDS: settings->load.records = (unsigned)number(name, 1, 1024); break;
    case OPTION_WINDOW: settings->load.window = (unsigned)number(name, 0, 1e6); break;
    case OPTION_RATE: settings->load.rate = number(name, 1, 1e8); break;
    case OPTION_GAP: settings->gap_us = number(name, 0, 1e7); break;
    case OPTION_WORKERS: settings->workers = (unsigned)number(name, 1, 1000); break;
    case OPTION_CLIENTS: settings->clients = (unsigned)number(name, 2, 60000); break;
    case OPTION_BUSY: settings->busy = number(name, 0, 1e6); break;
    case OPTION_FLOOD: settings->flood = (unsigned)number(name, 0, 1000); break;
    case OPTION_HELP: fputs(usage, stdout); exit(0);
    default: exit(1); /* getopt has said what is wrong */
    }
}

static const struct mode *find_mode(const char *name)
{
    for (size_t i = 0; name != NULL && i < sizeof modes / sizeof *modes; i++)
        if (strcmp(modes[i].name, name) == 0)
            return &modes[i];
    fputs(usage, stderr);
    exit(1);
}

static const struct mode *parse(int count, char **words, struct command_line *line)
{
    if (count > 1 && strcmp(words[1], "--help") == 0) {
        fputs(usage, stdout);
        exit(0);
    }
    const struct mode *mode = find_mode(count > 1 ? words[1] : NULL);
    *line = (struct command_line){
        .settings = {.mode = mode->name, .seconds = 2, .warmup = 0.5,
                     .load = {1, 1200, 1, mode->window, mode->rate, mode->mix},
                     .workers = 8, .clients = 1000},
        .address = "127.0.0.1", .cipher = "TLS_AES_128_GCM_SHA256", .groups = "X25519"};
    optind = 2;
    int id, index = 0;
    while ((id = getopt_long(count, words, "", option_table, &index)) != -1)
        take_option(line, id, option_table[index].name);
    if (optind < count)
        fail("%s: not understood, see loadgen --help", words[optind]);
    if (line->port == 0)
        fail("--port is missing");
    if (mode->mix && line->settings.load.pairs > 1000)
        fail("--pairs %u: at most 1000 in a mix", line->settings.load.pairs);
    return mode;
}

static void raise_open_files(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

int main(int count, char **words)
{
    struct command_line line;
    const struct mode *mode = parse(count, words, &line);
    if (sodium_init() < 0)
        fail("libsodium does not start");
    signal(SIGPIPE, SIG_IGN);
    raise_open_files();
    static struct generator generator;
    generator_init(&generator, line.address, line.port, line.cipher, line.groups);
    generator.server_name = line.name;
    generator.fast_start = line.fast_start;
    mode->measure(&generator, &line.settings);
    return 0;
}
