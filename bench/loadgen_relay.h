/* Packets through a relay: who sends what to whom, and how it is checked.
 *
 * A packet begins with 16 bytes of ours, then a fixed pattern:
 *
 *     0   8   when it was written, CLOCK_MONOTONIC ns
 *     8   8   flow number << 40 | sequence number (from 1)
 *     16  …   pattern
 *
 * A flow is one sender and one receiver. Sequence numbers of a flow that are passed over are
 * packets lost, one that goes back is a packet out of order or doubled. */
#ifndef LOADGEN_RELAY_H
#define LOADGEN_RELAY_H

#include "loadgen_client.h"
#include "loadgen_measure.h"

#define PACKET_PREFIX_BYTES 16

struct load {
    unsigned pairs;   /* senders, and as many receivers */
    unsigned size;    /* bytes of a packet */
    unsigned records; /* packets, each a TLS record or more, per write(2): the train */
    unsigned window;  /* closed loop: a sender writes while fewer are in flight; 0 = open loop */
    double rate;      /* packets/s offered by all senders together; 0 = all the sockets take */
    bool mix;         /* every sender to every receiver in turn, instead of pairs */
};

struct flow {
    unsigned sender, receiver;
    uint64_t sent, last_seen; /* sequence numbers */
};

struct sender {
    struct client *client;
    uint64_t sent, settled; /* settled: received, or passed over, hence lost */
    uint64_t progress_at;
    unsigned turn; /* next receiver of a mix */
};

struct relay {
    struct generator *generator;
    struct load load;
    struct sender *senders;
    struct client *receivers;
    struct flow *flows;
    uint8_t *frame, *pattern;
    unsigned next_sender; /* of a paced load */
    uint64_t next_due;
    /* Counted since the start. */
    uint64_t offered, sent, delivered;
    uint64_t refused;  /* offered, but the sender's socket was full */
    uint64_t late;     /* not even offered: the generator itself was too slow */
    uint64_t reordered, corrupt, stalls;
    bool measuring;
    struct histogram one_way; /* only while measuring */
};

/* `senders` and `receivers` are `load.pairs` logged-in clients each. */
void relay_init(struct relay *relay, struct generator *generator, struct load load,
                struct client *senders, struct client *receivers);
/* Lets each sender write what its load allows at `now`. Returns how many trains were written. */
unsigned relay_send(struct relay *relay, uint64_t now);
/* Writes what sockets refused earlier and waits until nothing more arrives, `limit_ns` at most. */
void relay_drain(struct relay *relay, uint64_t limit_ns);
/* Takes a packet of a receiver; the `on_packet` of loads made of relays only. */
void relay_packet(struct client *receiver, const uint8_t *source, const uint8_t *packet,
                  size_t length);
void relay_free(struct relay *relay);

#endif
