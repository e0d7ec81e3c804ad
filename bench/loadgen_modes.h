/* What can be measured. Each function opens its clients, runs, and prints one JSON object. */
#ifndef LOADGEN_MODES_H
#define LOADGEN_MODES_H

#include <sys/types.h>

#include "loadgen_client.h"
#include "loadgen_relay.h"

struct settings {
    const char *mode;
    pid_t server; /* whose CPU and memory are read; 0 reads none */
    double seconds, warmup;
    struct load load;
    double gap_us;     /* latency: pause between an answer and the next ping */
    unsigned workers;  /* connections: logins in progress at a time */
    unsigned clients;  /* idle: how many */
    double busy;       /* idle: seconds of traffic after the first hold; 0 = none */
    unsigned flood;    /* latency: clients beside the load that send all they can */
};

/* Modes pairs, open, paced, overload and mix: packets delivered, and what they cost. */
void measure_relay(struct generator *generator, const struct settings *settings);
/* One packet at a time, to and fro, alone or beside a paced load. */
void measure_latency(struct generator *generator, const struct settings *settings);
/* New clients per second: TCP, TLS, upgrade, login, close. */
void measure_connections(struct generator *generator, const struct settings *settings);
/* Memory and CPU of a server whose clients say nothing. */
void measure_idle(struct generator *generator, const struct settings *settings);

#endif
