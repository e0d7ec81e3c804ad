#include "loadgen_relay.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define SEQUENCE_BITS 40
#define SEQUENCE_MASK ((1ull << SEQUENCE_BITS) - 1)
#define FRAME_PREFIX_BYTES (FRAME_HEADER_BYTES + KEY_BYTES)
/* Trains of one sender before the next gets its turn, and of all before reading again. */
#define TRAINS_PER_TURN 8
#define PACED_TRAINS_PER_TURN 64
/* A paced generator that is further behind than this gives up the missed sends (and says so):
 * catching up in one burst would be another load. */
#define MAX_LATE_NS (20 * 1000 * NS_PER_US)
/* A closed loop with nothing back for so long has lost its whole window. Not shorter: a loaded
 * relay holds packets of 64 KiB for half a second, and a window opened too early is a flood. */
#define STALL_NS (2 * NS_PER_S)
#define QUIET_NS NS_PER_S
/* The whole pattern is compared in one packet of so many; both its ends in every one. */
#define FULL_CHECK_EVERY 16

static void put_header(struct relay *relay)
{
    uint32_t length = KEY_BYTES + relay->load.size;
    relay->frame[0] = SEND_PACKET;
    for (int i = 0; i < 4; i++)
        relay->frame[1 + i] = (uint8_t)(length >> (24 - 8 * i));
}

void relay_init(struct relay *relay, struct generator *generator, struct load load,
                struct client *senders, struct client *receivers)
{
    memset(relay, 0, sizeof *relay);
    relay->generator = generator;
    relay->load = load;
    relay->receivers = receivers;
    relay->senders = calloc(load.pairs, sizeof *relay->senders);
    unsigned flows = load.mix ? load.pairs * load.pairs : load.pairs;
    relay->flows = calloc(flows, sizeof *relay->flows);
    relay->frame = malloc(FRAME_PREFIX_BYTES + load.size);
    relay->pattern = relay->frame + FRAME_PREFIX_BYTES + PACKET_PREFIX_BYTES;
    if (relay->senders == NULL || relay->flows == NULL || relay->frame == NULL)
        fail("out of memory");
    put_header(relay);
    randombytes_buf(relay->pattern, load.size - PACKET_PREFIX_BYTES);
    for (unsigned i = 0; i < load.pairs; i++) {
        relay->senders[i].client = &senders[i];
        relay->senders[i].turn = i; /* or a mix would begin with all senders on one receiver */
        receivers[i].owner = relay;
    }
    for (unsigned i = 0; i < flows; i++)
        relay->flows[i] = load.mix ? (struct flow){i / load.pairs, i % load.pairs, 0, 0}
                                   : (struct flow){i, i, 0, 0};
    relay->next_due = monotonic_ns();
}

void relay_free(struct relay *relay)
{
    free(relay->senders);
    free(relay->flows);
    free(relay->frame);
}

/* ---- receiving -------------------------------------------------------------------------- */

static bool intact(const struct relay *relay, const uint8_t *packet, uint64_t sequence)
{
    const uint8_t *pattern = packet + PACKET_PREFIX_BYTES;
    size_t length = relay->load.size - PACKET_PREFIX_BYTES;
    if (sequence % FULL_CHECK_EVERY == 0)
        return memcmp(pattern, relay->pattern, length) == 0;
    size_t end = length < 8 ? length : 8;
    return memcmp(pattern, relay->pattern, end) == 0
           && memcmp(pattern + length - end, relay->pattern + length - end, end) == 0;
}

void relay_packet(struct client *receiver, const uint8_t *source, const uint8_t *packet,
                  size_t length)
{
    struct relay *relay = receiver->owner;
    uint64_t written_at, tag;
    if (relay == NULL || length != relay->load.size) {
        if (relay != NULL)
            relay->corrupt++;
        return;
    }
    memcpy(&written_at, packet, 8);
    memcpy(&tag, packet + 8, 8);
    uint64_t number = tag >> SEQUENCE_BITS, sequence = tag & SEQUENCE_MASK;
    unsigned flows = relay->load.mix ? relay->load.pairs * relay->load.pairs : relay->load.pairs;
    struct flow *flow = &relay->flows[number < flows ? number : 0];
    struct sender *sender = &relay->senders[flow->sender];
    if (number >= flows || receiver != &relay->receivers[flow->receiver]
        || memcmp(source, sender->client->identity->public_key, KEY_BYTES) != 0
        || !intact(relay, packet, sequence)) {
        relay->corrupt++;
        return;
    }
    if (sequence <= flow->last_seen) {
        relay->reordered++;
        return;
    }
    sender->settled += sequence - flow->last_seen;
    sender->progress_at = relay->generator->received_at;
    flow->last_seen = sequence;
    relay->delivered++;
    if (relay->measuring)
        histogram_add(&relay->one_way, relay->generator->received_at - written_at);
}

/* ---- sending ---------------------------------------------------------------------------- */

/* Encrypts one train and hands it to the socket. */
static void write_train(struct relay *relay, struct sender *sender, unsigned number)
{
    uint8_t *frame = relay->frame;
    uint64_t now = monotonic_ns();
    memcpy(frame + FRAME_PREFIX_BYTES, &now, 8);
    for (unsigned i = 0; i < relay->load.records; i++) {
        unsigned index = number;
        if (relay->load.mix)
            index = number * relay->load.pairs + sender->turn++ % relay->load.pairs;
        struct flow *flow = &relay->flows[index];
        const struct client *receiver = &relay->receivers[flow->receiver];
        uint64_t tag = (uint64_t)index << SEQUENCE_BITS | ++flow->sent;
        memcpy(frame + FRAME_HEADER_BYTES, receiver->identity->public_key, KEY_BYTES);
        memcpy(frame + FRAME_PREFIX_BYTES + 8, &tag, 8);
        client_write(sender->client, frame, FRAME_PREFIX_BYTES + relay->load.size);
        if (sender->client->stage != STAGE_READY)
            return;
    }
    sender->sent += relay->load.records;
    relay->sent += relay->load.records;
    client_flush(sender->client);
}

static bool may_write(struct relay *relay, struct sender *sender, uint64_t now)
{
    if (sender->client->stage != STAGE_READY || client_blocked(sender->client))
        return false;
    if (relay->load.window == 0 || sender->sent - sender->settled < relay->load.window)
        return true;
    if (now < sender->progress_at + STALL_NS || sender->progress_at == 0)
        return false;
    sender->settled = sender->sent;
    sender->progress_at = now;
    relay->stalls++;
    return true;
}

static unsigned send_unpaced(struct relay *relay, uint64_t now)
{
    unsigned written = 0;
    for (unsigned i = 0; i < relay->load.pairs; i++) {
        struct sender *sender = &relay->senders[i];
        if (sender->progress_at == 0)
            sender->progress_at = now;
        for (unsigned turn = 0; turn < TRAINS_PER_TURN && may_write(relay, sender, now); turn++) {
            write_train(relay, sender, i);
            written++;
            if (relay->generator->between)
                relay->generator->between();
        }
    }
    relay->offered = relay->sent;
    return written;
}

static unsigned send_paced(struct relay *relay, uint64_t now)
{
    double interval = (double)NS_PER_S * relay->load.records / relay->load.rate;
    if (now > relay->next_due + MAX_LATE_NS) {
        uint64_t missed = (uint64_t)((double)(now - MAX_LATE_NS - relay->next_due) / interval);
        relay->late += missed * relay->load.records;
        relay->next_due = now - MAX_LATE_NS;
    }
    unsigned written = 0;
    while (relay->next_due <= now && written < PACED_TRAINS_PER_TURN) {
        unsigned number = relay->next_sender;
        struct sender *sender = &relay->senders[number];
        relay->offered += relay->load.records;
        if (may_write(relay, sender, now))
            write_train(relay, sender, number);
        else
            relay->refused += relay->load.records;
        written++;
        relay->next_sender = (number + 1) % relay->load.pairs;
        relay->next_due += (uint64_t)interval;
    }
    return written;
}

unsigned relay_send(struct relay *relay, uint64_t now)
{
    return relay->load.rate > 0 ? send_paced(relay, now) : send_unpaced(relay, now);
}

void relay_drain(struct relay *relay, uint64_t limit_ns)
{
    uint64_t start = monotonic_ns(), moved_at = start, delivered = relay->delivered;
    while (relay->delivered < relay->sent) {
        generator_poll(relay->generator, 20);
        uint64_t now = monotonic_ns();
        if (relay->delivered != delivered)
            moved_at = now;
        delivered = relay->delivered;
        if (now > start + limit_ns || now > moved_at + QUIET_NS)
            break;
    }
}
