/* A DERP client over TLS 1.3, non-blocking, many to one epoll.
 *
 * OpenSSL never sees the socket: ciphertext goes through memory only, so that one recv(2) takes
 * everything that waits and one send(2) carries a whole train of records. Nothing is allocated
 * per packet: received ciphertext and plaintext use two buffers shared by all clients, and the
 * output buffer of a client is kept. */
#ifndef LOADGEN_CLIENT_H
#define LOADGEN_CLIENT_H

#include <netinet/in.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KEY_BYTES 32
#define FRAME_HEADER_BYTES 5
#define MAX_PACKET_BYTES 65536
#define SEND_PACKET 0x04
#define RECV_PACKET 0x05

/* A node key. The box key shared with the server is computed once and kept, because a client
 * that logs in thousands of times a second must not spend its own time on that. */
struct identity {
    uint8_t public_key[KEY_BYTES], secret_key[KEY_BYTES], shared_key[KEY_BYTES];
    bool has_shared_key;
};

enum stage {
    STAGE_CLOSED,
    STAGE_CONNECTING,  /* TCP */
    STAGE_TLS,         /* handshake */
    STAGE_UPGRADING,   /* HTTP request sent, no answer yet; skipped by fast start */
    STAGE_SERVER_KEY,  /* waiting for the greeting */
    STAGE_SERVER_INFO, /* ClientInfo sent */
    STAGE_READY,       /* logged in: packets flow */
};

struct client {
    struct generator *generator;
    struct identity *identity;
    enum stage stage;
    int fd;
    SSL *ssl;
    bool sent_client_info;
    uint8_t *out; /* ciphertext that the socket has not taken yet: [out_sent, out_length) */
    size_t out_length, out_sent, out_capacity;
    uint8_t *held; /* plaintext of a frame that has not arrived completely */
    size_t held_length, held_capacity;
    void *owner; /* for the receiver of packets */
};

/* Called for each RecvPacket frame of a client that is logged in. The bytes are valid during
 * the call only. */
typedef void packet_handler(struct client *client, const uint8_t *source, const uint8_t *packet,
                            size_t length);

struct generator {
    int epoll;
    SSL_CTX *tls;
    struct sockaddr_in server;
    const char *server_name; /* SNI and Host; NULL sends no SNI */
    bool fast_start;
    uint8_t server_key[KEY_BYTES];
    bool has_server_key;
    packet_handler *on_packet;
    uint64_t received_at; /* when the bytes under work were taken from their socket, ns */
    /* Called after each piece of work that takes long, if set: what must not wait for the rest. */
    void (*between)(void);
    size_t take; /* most bytes of a socket at once; 0 = all the buffer holds */
    uint64_t ready, failed; /* logins completed; connections that ended by error or by server */
    char last_failure[200];
};

void generator_init(struct generator *generator, const char *address, int port,
                    const char *ciphers, const char *groups);
/* Handles what is ready; waits up to `timeout_ms` for it (0: looks and returns). Returns the
 * number of sockets that were ready. */
int generator_poll(struct generator *generator, int timeout_ms);
/* Opens `count` clients with fresh identities, `at_once` at a time; ends the program if one
 * fails. */
void generator_open(struct generator *generator, struct client *clients, unsigned count,
                    unsigned at_once);

/* Starts connecting; generator_poll does the rest. `client` must be zeroed or closed. */
void client_open(struct client *client, struct generator *generator, struct identity *identity);
/* Counts a failure and closes. */
void client_lost(struct client *client, const char *why);
/* Says goodbye (close_notify) and closes. */
void client_close(struct client *client);
/* Encrypts `length` bytes as one write: one TLS record per 16 KiB. Sent by client_flush. */
void client_write(struct client *client, const void *data, size_t length);
/* Hands what is encrypted to the socket. False if it did not take all. */
bool client_flush(struct client *client);
static inline bool client_blocked(const struct client *client)
{
    return client->out_length > 0;
}

#endif
