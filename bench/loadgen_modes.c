#include "loadgen_modes.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "loadgen_login.h"

#define LOGINS_AT_ONCE 16
#define DRAIN_NS (5 * NS_PER_S)
#define PROBE_LIMIT_NS NS_PER_S
#define IDENTITIES 4096
#define FIRST_CLIENTS 20
#define SETTLE_S 2.0
/* A flooding client's train: short, so that the generator itself is not what others wait for. */
#define FLOOD_RECORDS 4
#define FLOOD_TAKE (16 << 10)

static uint64_t nanoseconds(double seconds)
{
    return (uint64_t)(seconds * (double)NS_PER_S);
}

static struct client *open_clients(struct generator *generator, unsigned count)
{
    struct client *clients = calloc(count, sizeof *clients);
    if (clients == NULL)
        fail("out of memory");
    generator_open(generator, clients, count, LOGINS_AT_ONCE);
    return clients;
}

/* ---- a stretch of time ------------------------------------------------------------------ */

/* The generator never sleeps while it measures: it has a CPU to itself, and waking it up would
 * be billed to the server's send(2). A pass that found nothing to do counts as idle. */
struct stretch {
    pid_t server;
    uint64_t began, ended, idle_ns;
    struct cpu_time cpu;
};

static struct stretch stretch_begin(pid_t server)
{
    return (struct stretch){server, monotonic_ns(), 0, 0, process_cpu(server)};
}

static void stretch_end(struct stretch *stretch)
{
    stretch->ended = monotonic_ns();
    stretch->cpu = cpu_between(stretch->cpu, process_cpu(stretch->server));
}

static void json_stretch(const struct stretch *stretch)
{
    double elapsed = (double)(stretch->ended - stretch->began);
    json_number("seconds", elapsed / 1e9);
    json_server_cpu(stretch->cpu);
    json_number("generator_busy", 1 - (double)stretch->idle_ns / elapsed);
}

static void json_failures(const struct generator *generator)
{
    json_count("failed", generator->failed);
    if (generator->failed)
        json_text("last_failure", generator->last_failure);
}

/* Services sockets without sending, for tests of silence. */
static void rest(struct generator *generator, double seconds)
{
    uint64_t end = monotonic_ns() + nanoseconds(seconds);
    for (uint64_t now = monotonic_ns(); now < end; now = monotonic_ns())
        generator_poll(generator, (int)((end - now) / 1000000) + 1);
}

/* ---- one ping at a time ----------------------------------------------------------------- */

struct probe {
    struct client *near, *far;
    unsigned size;
    uint64_t gap_ns, next_at, sent_at, sequence, lost;
    bool waiting;
    struct histogram *round_trip, *one_way; /* NULL while warming up */
    uint8_t frame[FRAME_HEADER_BYTES + KEY_BYTES + MAX_PACKET_BYTES];
};

static void probe_write(struct probe *probe, struct client *from, struct client *to)
{
    uint8_t *packet = probe->frame + FRAME_HEADER_BYTES + KEY_BYTES;
    uint32_t length = KEY_BYTES + probe->size;
    uint64_t now = monotonic_ns();
    probe->frame[0] = SEND_PACKET;
    for (int i = 0; i < 4; i++)
        probe->frame[1 + i] = (uint8_t)(length >> (24 - 8 * i));
    memcpy(probe->frame + FRAME_HEADER_BYTES, to->identity->public_key, KEY_BYTES);
    memcpy(packet, &now, 8);
    memcpy(packet + 8, &probe->sequence, 8);
    client_write(from, probe->frame, FRAME_HEADER_BYTES + length);
    if (from->stage == STAGE_READY)
        client_flush(from);
}

static unsigned probe_send(struct probe *probe, uint64_t now)
{
    if (probe->waiting && now > probe->sent_at + PROBE_LIMIT_NS) {
        probe->lost++;
        probe->waiting = false;
    }
    if (probe->waiting || now < probe->next_at || probe->near->stage != STAGE_READY)
        return 0;
    probe->waiting = true;
    probe->sequence++;
    probe->sent_at = now;
    probe_write(probe, probe->near, probe->far);
    return 1;
}

static void probe_packet(struct probe *probe, struct client *client, const uint8_t *packet,
                         size_t length)
{
    uint64_t written_at, sequence, now = client->generator->received_at;
    if (length != probe->size)
        return;
    memcpy(&written_at, packet, 8);
    memcpy(&sequence, packet + 8, 8);
    if (sequence != probe->sequence)
        return; /* came after it was given up */
    if (probe->one_way)
        histogram_add(probe->one_way, now - written_at);
    if (client == probe->far) {
        probe_write(probe, probe->far, probe->near);
        return;
    }
    if (probe->round_trip)
        histogram_add(probe->round_trip, now - probe->sent_at);
    probe->waiting = false;
    probe->next_at = now + probe->gap_ns;
}

/* The generator has one handler; which probe or relay a client belongs to says its owner. */
static struct probe the_probe;

static void any_packet(struct client *client, const uint8_t *source, const uint8_t *packet,
                       size_t length)
{
    if (client->owner == &the_probe)
        probe_packet(&the_probe, client, packet, length);
    else
        relay_packet(client, source, packet, length);
}

/* The probe has an epoll of its own, looked at whenever the load has done a piece of its work. */
static struct generator probing;

static void look_at_probe(void)
{
    generator_poll(&probing, 0);
    probe_send(&the_probe, monotonic_ns());
}

/* ---- modes ------------------------------------------------------------------------------ */

/* `relays` ends with NULL. */
static void spin(struct generator *generator, struct relay *const *relays, struct probe *probe,
                 double seconds, struct stretch *stretch)
{
    uint64_t now = monotonic_ns(), end = now + nanoseconds(seconds);
    while (now < end) {
        unsigned work = 0;
        for (unsigned i = 0; relays[i]; i++)
            work += relay_send(relays[i], now);
        if (probe)
            work += (unsigned)generator_poll(&probing, 0) + probe_send(probe, now);
        work += (unsigned)generator_poll(generator, 0);
        uint64_t after = monotonic_ns();
        if (work == 0 && stretch)
            stretch->idle_ns += after - now;
        now = after;
    }
}

static void json_load(const struct load *load)
{
    json_count("pairs", load->pairs);
    json_count("size", load->size);
    json_count("records", load->records);
    json_count("window", load->window);
    json_number("rate", load->rate);
    json_count("mix", load->mix);
}

void measure_relay(struct generator *generator, const struct settings *settings)
{
    struct load load = settings->load;
    struct client *receivers = open_clients(generator, load.pairs);
    struct client *senders = open_clients(generator, load.pairs);
    static struct relay relay;
    generator->on_packet = relay_packet;
    struct relay *const relays[] = {&relay, NULL};
    relay_init(&relay, generator, load, senders, receivers);
    spin(generator, relays, NULL, settings->warmup, NULL);

    uint64_t offered = relay.offered, sent = relay.sent, delivered = relay.delivered;
    uint64_t refused = relay.refused, late = relay.late;
    struct stretch stretch = stretch_begin(settings->server);
    relay.measuring = true;
    spin(generator, relays, NULL, settings->seconds, &stretch);
    relay.measuring = false;
    stretch_end(&stretch);
    offered = relay.offered - offered, sent = relay.sent - sent;
    delivered = relay.delivered - delivered;
    refused = relay.refused - refused, late = relay.late - late;
    relay_drain(&relay, DRAIN_NS);

    json_begin();
    json_text("mode", settings->mode);
    json_load(&load);
    json_stretch(&stretch);
    json_count("offered", offered);
    json_count("sent", sent);
    json_count("delivered", delivered);
    json_count("refused", refused);
    json_count("late", late);
    json_count("lost", relay.sent - relay.delivered);
    json_count("sent_in_all", relay.sent);
    json_count("reordered", relay.reordered);
    json_count("corrupt", relay.corrupt);
    json_count("stalls", relay.stalls);
    json_failures(generator);
    json_histogram("one_way", &relay.one_way);
    json_end();
}

void measure_latency(struct generator *generator, const struct settings *settings)
{
    static struct histogram round_trip, one_way;
    static struct relay relay, flood;
    struct relay *relays[3] = {NULL, NULL, NULL}, **next = relays;
    struct load load = settings->load;
    struct load unbound = {settings->flood, load.size, FLOOD_RECORDS, 0, 0, false};
    probing = *generator;
    probing.epoll = epoll_create1(EPOLL_CLOEXEC);
    struct client *ends = open_clients(&probing, 2);
    generator->has_server_key = probing.has_server_key;
    memcpy(generator->server_key, probing.server_key, KEY_BYTES);
    the_probe.near = &ends[0];
    the_probe.far = &ends[1];
    the_probe.size = load.size;
    the_probe.gap_ns = (uint64_t)(settings->gap_us * 1e3);
    ends[0].owner = ends[1].owner = &the_probe;
    generator->on_packet = probing.on_packet = any_packet;
    if (load.rate > 0) {
        struct client *receivers = open_clients(generator, load.pairs);
        relay_init(&relay, generator, load, open_clients(generator, load.pairs), receivers);
        *next++ = &relay;
    }
    if (unbound.pairs) {
        struct client *receivers = open_clients(generator, unbound.pairs);
        relay_init(&flood, generator, unbound, open_clients(generator, unbound.pairs), receivers);
        *next++ = &flood;
        generator->take = FLOOD_TAKE;
    }
    generator->between = look_at_probe;
    spin(generator, relays, &the_probe, settings->warmup, NULL);

    uint64_t before = relay.delivered, flooded = flood.delivered;
    the_probe.round_trip = &round_trip;
    the_probe.one_way = &one_way;
    relay.measuring = true;
    struct stretch stretch = stretch_begin(settings->server);
    spin(generator, relays, &the_probe, settings->seconds, &stretch);
    stretch_end(&stretch);

    json_begin();
    json_text("mode", settings->mode);
    json_load(&load);
    json_stretch(&stretch);
    json_count("delivered", relay.delivered - before + one_way.count);
    json_count("flooded", flood.delivered - flooded);
    json_count("late", relay.late);
    json_count("lost", the_probe.lost);
    json_count("reordered", relay.reordered);
    json_count("corrupt", relay.corrupt);
    json_failures(generator);
    json_histogram("round_trip", &round_trip);
    json_histogram("one_way", &one_way);
    json_histogram("load_one_way", &relay.one_way);
    json_end();
}

/* ---- many clients ----------------------------------------------------------------------- */

struct churn {
    struct generator *generator;
    struct identity *identities;
    unsigned next_identity, workers;
    struct client *clients;
    uint64_t *began, done;
    struct histogram *duration;
};

static void churn_start(struct churn *churn, unsigned worker)
{
    struct identity *identity = &churn->identities[churn->next_identity++ % IDENTITIES];
    churn->began[worker] = monotonic_ns();
    client_open(&churn->clients[worker], churn->generator, identity);
}

static void churn_for(struct churn *churn, double seconds, struct stretch *stretch)
{
    uint64_t now = monotonic_ns(), end = now + nanoseconds(seconds);
    while (now < end) {
        int ready = generator_poll(churn->generator, 0);
        uint64_t after = monotonic_ns();
        if (ready == 0 && stretch)
            stretch->idle_ns += after - now;
        now = after;
        for (unsigned i = 0; ready > 0 && i < churn->workers; i++) {
            struct client *client = &churn->clients[i];
            if (client->stage == STAGE_READY) {
                churn->done++;
                if (stretch)
                    histogram_add(churn->duration, now - churn->began[i]);
                client_close(client);
            }
            if (client->stage == STAGE_CLOSED)
                churn_start(churn, i);
        }
        if (churn->generator->failed > 1000)
            fail("more than 1000 logins failed, the last %s", churn->generator->last_failure);
    }
}

void measure_connections(struct generator *generator, const struct settings *settings)
{
    static struct histogram duration;
    struct churn churn = {.generator = generator, .workers = settings->workers};
    churn.identities = calloc(IDENTITIES, sizeof *churn.identities);
    churn.clients = calloc(churn.workers, sizeof *churn.clients);
    churn.began = calloc(churn.workers, sizeof *churn.began);
    churn.duration = &duration;
    client_close(open_clients(generator, 1)); /* tells the server's key */
    for (unsigned i = 0; i < IDENTITIES; i++) {
        identity_create(&churn.identities[i]);
        identity_share(&churn.identities[i], generator);
    }
    for (unsigned i = 0; i < churn.workers; i++)
        churn_start(&churn, i);
    churn_for(&churn, settings->warmup, NULL);

    uint64_t before = churn.done;
    struct stretch stretch = stretch_begin(settings->server);
    churn_for(&churn, settings->seconds, &stretch);
    stretch_end(&stretch);

    json_begin();
    json_text("mode", settings->mode);
    json_count("workers", churn.workers);
    json_count("fast_start", generator->fast_start);
    json_stretch(&stretch);
    json_count("clients", churn.done - before);
    json_failures(generator);
    json_histogram("login", &duration);
    json_end();
}

/* Flood between neighbours among `clients`, then silence until all queues are empty. */
static void be_busy(struct generator *generator, const struct settings *settings,
                    struct client *clients)
{
    static struct relay relay;
    struct load load = settings->load;
    load.pairs = settings->clients / 2;
    generator->on_packet = relay_packet;
    struct relay *const relays[] = {&relay, NULL};
    relay_init(&relay, generator, load, clients, clients + load.pairs);
    spin(generator, relays, NULL, settings->busy, NULL);
    relay_drain(&relay, DRAIN_NS);
    json_count("busy_sent", relay.sent);
    json_count("busy_delivered", relay.delivered);
}

void measure_idle(struct generator *generator, const struct settings *settings)
{
    SSL_CTX_set_mode(generator->tls, SSL_MODE_RELEASE_BUFFERS); /* thousands of them */
    open_clients(generator, FIRST_CLIENTS); /* the first cost imports and tables */
    rest(generator, SETTLE_S);
    struct memory base = process_memory(settings->server);

    struct client *clients = open_clients(generator, settings->clients);
    rest(generator, SETTLE_S);
    struct memory idle = process_memory(settings->server);
    struct stretch stretch = stretch_begin(settings->server);
    rest(generator, settings->seconds);
    stretch_end(&stretch);

    json_begin();
    json_text("mode", settings->mode);
    json_count("clients", settings->clients);
    json_number("seconds", (double)(stretch.ended - stretch.began) / 1e9);
    json_server_cpu(stretch.cpu);
    json_count("base_rss_kib", (uint64_t)base.rss);
    json_number("idle_kib", (double)(idle.rss - base.rss) / settings->clients);
    json_number("idle_pss_kib", (double)(idle.pss - base.pss) / settings->clients);
    json_number("slab_kib", (double)(idle.slab - base.slab) / settings->clients);
    if (settings->busy > 0) {
        be_busy(generator, settings, clients);
        rest(generator, SETTLE_S + settings->warmup);
        struct memory after = process_memory(settings->server);
        json_number("after_busy_kib", (double)(after.rss - base.rss) / settings->clients);
        json_number("after_busy_pss_kib", (double)(after.pss - base.pss) / settings->clients);
    }
    json_failures(generator);
    json_end();
}
