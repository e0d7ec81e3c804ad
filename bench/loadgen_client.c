#include "loadgen_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "loadgen_login.h"
#include "loadgen_measure.h"

#define RECEIVE_BYTES (64 << 10)
/* An incomplete frame plus all that one receive can decrypt to (its bytes and the part of a
 * record that OpenSSL kept from the receive before). */
#define PLAIN_BYTES (256 << 10)
#define MAX_FRAME_BYTES (MAX_PACKET_BYTES + 2 * KEY_BYTES)
#define LOGIN_LIMIT_NS (30 * NS_PER_S)

static uint8_t received[RECEIVE_BYTES];
static uint8_t plain[PLAIN_BYTES];
/* The part of `received` that OpenSSL has not taken yet. */
static const uint8_t *feed;
static size_t feed_length;

/* ---- ciphertext through memory ---------------------------------------------------------- */

static void reserve(uint8_t **buffer, size_t *capacity, size_t wanted)
{
    if (wanted <= *capacity)
        return;
    size_t grown = *capacity ? *capacity : 1024;
    while (grown < wanted)
        grown *= 2;
    *buffer = realloc(*buffer, grown);
    if (*buffer == NULL)
        fail("out of memory");
    *capacity = grown;
}

static int memory_write(BIO *bio, const char *data, int length)
{
    struct client *client = BIO_get_data(bio);
    size_t end = client->out_length + (size_t)length;
    reserve(&client->out, &client->out_capacity, end);
    memcpy(client->out + client->out_length, data, (size_t)length);
    client->out_length = end;
    return length;
}

static int memory_read(BIO *bio, char *data, int length)
{
    BIO_clear_retry_flags(bio);
    if (feed_length == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    size_t taken = (size_t)length < feed_length ? (size_t)length : feed_length;
    memcpy(data, feed, taken);
    feed += taken;
    feed_length -= taken;
    return (int)taken;
}

static long memory_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

static BIO *memory_bio(struct client *client)
{
    static BIO_METHOD *method;
    if (method == NULL) {
        method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "shared memory");
        BIO_meth_set_write(method, memory_write);
        BIO_meth_set_read(method, memory_read);
        BIO_meth_set_ctrl(method, memory_control);
    }
    BIO *bio = BIO_new(method);
    BIO_set_data(bio, client);
    BIO_set_init(bio, 1);
    return bio;
}

/* ---- closing ---------------------------------------------------------------------------- */

static void client_release(struct client *client)
{
    client->stage = STAGE_CLOSED;
    close(client->fd); /* leaves the epoll by itself */
    client->fd = -1;
    SSL_free(client->ssl);
    client->ssl = NULL;
    client->out_length = client->out_sent = client->held_length = 0;
}

void client_lost(struct client *client, const char *why)
{
    static const char *const stages[] = {"",          "connecting",     "in the TLS handshake",
                                         "upgrading", "waiting for ServerKey",
                                         "waiting for ServerInfo", "logged in"};
    struct generator *generator = client->generator;
    generator->failed++;
    snprintf(generator->last_failure, sizeof generator->last_failure, "while %s: %s",
             stages[client->stage], why);
    ERR_clear_error();
    client_release(client);
}

void client_close(struct client *client)
{
    if (client->stage == STAGE_CLOSED)
        return;
    if (client->stage > STAGE_TLS && client->out_length == 0) {
        feed_length = 0;
        SSL_shutdown(client->ssl);
        client_flush(client);
    }
    if (client->stage != STAGE_CLOSED)
        client_release(client);
}

/* ---- sending ---------------------------------------------------------------------------- */

void client_write(struct client *client, const void *data, size_t length)
{
    if (SSL_write(client->ssl, data, (int)length) != (int)length)
        client_lost(client, "TLS cannot write");
}

bool client_flush(struct client *client)
{
    while (client->out_sent < client->out_length) {
        ssize_t taken = send(client->fd, client->out + client->out_sent,
                             client->out_length - client->out_sent, MSG_NOSIGNAL);
        if (taken < 0) {
            if (errno == EINTR)
                continue;
            if (errno != EAGAIN)
                client_lost(client, strerror(errno));
            return false;
        }
        client->out_sent += (size_t)taken;
    }
    client->out_length = client->out_sent = 0;
    return true;
}

/* ---- receiving -------------------------------------------------------------------------- */

/* Handles all complete frames; returns how many bytes they took. Frames other than packets
 * (keep-alives, peers gone) are passed over. */
static size_t take_frames(struct client *client, const uint8_t *data, size_t length)
{
    size_t used = 0;
    while (length - used >= FRAME_HEADER_BYTES) {
        const uint8_t *frame = data + used;
        uint32_t size;
        memcpy(&size, frame + 1, sizeof size);
        size = ntohl(size);
        if (size > MAX_FRAME_BYTES) {
            client_lost(client, "a frame is too long");
            break;
        }
        if (length - used - FRAME_HEADER_BYTES < size)
            break;
        const uint8_t *payload = frame + FRAME_HEADER_BYTES;
        if (client->stage != STAGE_READY)
            login_frame(client, frame[0], payload, size);
        else if (frame[0] == RECV_PACKET && size >= KEY_BYTES)
            client->generator->on_packet(client, payload, payload + KEY_BYTES, size - KEY_BYTES);
        used += FRAME_HEADER_BYTES + size;
        if (client->stage == STAGE_CLOSED)
            break;
    }
    return used;
}

static void take_plaintext(struct client *client, size_t length)
{
    size_t used = 0;
    if (client->stage == STAGE_UPGRADING)
        used = login_http_answer(client, plain, length);
    if (client->stage > STAGE_UPGRADING)
        used += take_frames(client, plain + used, length - used);
    if (client->stage == STAGE_CLOSED)
        return;
    client->held_length = length - used;
    reserve(&client->held, &client->held_capacity, client->held_length);
    if (client->held_length > 0)
        memcpy(client->held, plain + used, client->held_length);
}

/* True once the handshake is done. */
static bool advance_handshake(struct client *client)
{
    int result = SSL_do_handshake(client->ssl);
    if (result == 1) {
        login_begin(client);
        return client->stage != STAGE_CLOSED;
    }
    if (SSL_get_error(client->ssl, result) != SSL_ERROR_WANT_READ) {
        const char *reason = ERR_reason_error_string(ERR_peek_error());
        client_lost(client, reason ? reason : "the handshake failed");
    }
    return false;
}

/* Decrypts and handles what is in `feed`. OpenSSL keeps the beginning of an incomplete record
 * itself, so nothing stays in `feed`. */
static void take_ciphertext(struct client *client)
{
    if (client->stage == STAGE_TLS && !advance_handshake(client))
        return;
    size_t length = client->held_length;
    if (length > 0)
        memcpy(plain, client->held, length);
    while (feed_length > 0) {
        int got = SSL_read(client->ssl, plain + length, (int)(sizeof plain - length));
        if (got > 0) {
            length += (size_t)got;
            continue;
        }
        int error = SSL_get_error(client->ssl, got);
        if (error == SSL_ERROR_WANT_READ)
            break;
        client_lost(client, error == SSL_ERROR_ZERO_RETURN ? "the server said goodbye"
                                                           : "a TLS record does not decrypt");
        return;
    }
    take_plaintext(client, length);
}

static void client_receive(struct client *client)
{
    size_t take = client->generator->take ? client->generator->take : sizeof received;
    for (;;) {
        ssize_t got = recv(client->fd, received, take, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN)
            return;
        if (got <= 0) {
            client_lost(client, got == 0 ? "the server closed the connection" : strerror(errno));
            return;
        }
        client->generator->received_at = monotonic_ns();
        feed = received;
        feed_length = (size_t)got;
        take_ciphertext(client);
        if (client->stage == STAGE_CLOSED)
            return;
        if (client->stage < STAGE_READY || client->out_length > 0)
            client_flush(client);
        if (client->stage == STAGE_CLOSED || got < (ssize_t)take)
            return; /* a short read emptied the socket: the next byte is a new edge */
        if (client->generator->between)
            client->generator->between();
    }
}

/* ---- connecting ------------------------------------------------------------------------- */

static void begin_tls(struct client *client)
{
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) {
        client_lost(client, strerror(error));
        return;
    }
    client->stage = STAGE_TLS;
    client->ssl = SSL_new(client->generator->tls);
    BIO *bio = memory_bio(client);
    SSL_set_bio(client->ssl, bio, bio);
    SSL_set_connect_state(client->ssl);
    if (client->generator->server_name)
        SSL_set_tlsext_host_name(client->ssl, client->generator->server_name);
    feed_length = 0;
    advance_handshake(client);
    if (client->stage != STAGE_CLOSED)
        client_flush(client);
}

void client_open(struct client *client, struct generator *generator, struct identity *identity)
{
    client->generator = generator;
    client->identity = identity;
    client->sent_client_info = false;
    client->stage = STAGE_CONNECTING;
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (client->fd < 0)
        fail("socket: %s (raise the limit of open files: ulimit -n)", strerror(errno));
    int on = 1;
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    /* One registration for life: edges cost no system call when a sender blocks. */
    struct epoll_event interest = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = client};
    epoll_ctl(generator->epoll, EPOLL_CTL_ADD, client->fd, &interest);
    if (connect(client->fd, (struct sockaddr *)&generator->server, sizeof generator->server) < 0
        && errno != EINPROGRESS)
        client_lost(client, strerror(errno));
}

static void client_event(struct client *client, uint32_t events)
{
    if (client->stage == STAGE_CONNECTING && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
        begin_tls(client);
    else if (client->stage != STAGE_CLOSED && (events & EPOLLOUT) && client->out_length > 0)
        client_flush(client);
    if (client->stage > STAGE_CONNECTING && (events & ~(uint32_t)EPOLLOUT))
        client_receive(client);
}

int generator_poll(struct generator *generator, int timeout_ms)
{
    struct epoll_event events[256];
    int count = epoll_wait(generator->epoll, events, 256, timeout_ms);
    for (int i = 0; i < count; i++) {
        client_event(events[i].data.ptr, events[i].events);
        if (generator->between)
            generator->between();
    }
    return count;
}

void generator_open(struct generator *generator, struct client *clients, unsigned count,
                    unsigned at_once)
{
    uint64_t deadline = monotonic_ns() + LOGIN_LIMIT_NS;
    uint64_t ready_before = generator->ready, failed_before = generator->failed;
    unsigned begun = 0;
    while (generator->ready - ready_before < count) {
        while (begun < count && begun - (generator->ready - ready_before) < at_once) {
            struct identity *identity = malloc(sizeof *identity);
            identity_create(identity);
            client_open(&clients[begun++], generator, identity);
            deadline = monotonic_ns() + LOGIN_LIMIT_NS;
        }
        generator_poll(generator, 100);
        if (generator->failed != failed_before)
            fail("cannot log in: %s", generator->last_failure);
        if (monotonic_ns() > deadline)
            fail("cannot log in: no progress for 30 s with %u clients", begun);
    }
}

void generator_init(struct generator *generator, const char *address, int port,
                    const char *ciphers, const char *groups)
{
    memset(generator, 0, sizeof *generator);
    generator->epoll = epoll_create1(EPOLL_CLOEXEC);
    generator->server.sin_family = AF_INET;
    generator->server.sin_port = htons((uint16_t)port);
    if (inet_pton(AF_INET, address, &generator->server.sin_addr) != 1)
        fail("--address %s is not an IPv4 address", address);
    generator->tls = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(generator->tls, TLS1_3_VERSION);
    if (SSL_CTX_set_ciphersuites(generator->tls, ciphers) != 1)
        fail("--cipher %s: OpenSSL does not know this TLS 1.3 suite", ciphers);
    if (SSL_CTX_set1_groups_list(generator->tls, groups) != 1)
        fail("--groups %s: OpenSSL does not know this group", groups);
    SSL_CTX_set_session_cache_mode(generator->tls, SSL_SESS_CACHE_OFF);
}
