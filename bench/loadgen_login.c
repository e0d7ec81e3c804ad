#define _GNU_SOURCE /* memmem */
#include "loadgen_login.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "loadgen_measure.h"

#define SERVER_KEY 0x01
#define CLIENT_INFO 0x02
#define SERVER_INFO 0x03
#define MAGIC_BYTES 8

void identity_create(struct identity *identity)
{
    crypto_box_keypair(identity->public_key, identity->secret_key);
    identity->has_shared_key = false;
}

void identity_share(struct identity *identity, const struct generator *generator)
{
    if (identity->has_shared_key)
        return;
    if (crypto_box_beforenm(identity->shared_key, generator->server_key, identity->secret_key)
        != 0)
        fail("the server's key is not a usable Curve25519 key");
    identity->has_shared_key = true;
}

/* Appends ClientInfo to `frame`: client key, nonce, box of the JSON. Returns its length. */
static size_t put_client_info(struct client *client, uint8_t *frame)
{
    static const uint8_t json[] = "{\"version\":2,\"CanAckPings\":true}";
    struct identity *identity = client->identity;
    identity_share(identity, client->generator);
    size_t length = KEY_BYTES + crypto_box_NONCEBYTES + crypto_box_MACBYTES + sizeof json - 1;
    frame[0] = CLIENT_INFO;
    frame[1] = frame[2] = frame[3] = 0;
    frame[4] = (uint8_t)length;
    uint8_t *nonce = frame + FRAME_HEADER_BYTES + KEY_BYTES;
    memcpy(frame + FRAME_HEADER_BYTES, identity->public_key, KEY_BYTES);
    randombytes_buf(nonce, crypto_box_NONCEBYTES);
    crypto_box_easy_afternm(nonce + crypto_box_NONCEBYTES, json, sizeof json - 1, nonce,
                            identity->shared_key);
    return FRAME_HEADER_BYTES + length;
}

static void send_client_info(struct client *client)
{
    uint8_t frame[256];
    client_write(client, frame, put_client_info(client, frame));
    client->sent_client_info = true;
}

/* The server's key from the common name ("derpkey" and 64 hex digits) of the last certificate
 * of its chain. */
static bool key_from_meta_certificate(SSL *ssl, uint8_t *key)
{
    STACK_OF(X509) *chain = SSL_get_peer_cert_chain(ssl);
    if (chain == NULL || sk_X509_num(chain) == 0)
        return false;
    char name[128];
    X509 *last = sk_X509_value(chain, sk_X509_num(chain) - 1);
    int length = X509_NAME_get_text_by_NID(X509_get_subject_name(last), NID_commonName, name,
                                           sizeof name);
    return length == 7 + 2 * KEY_BYTES && memcmp(name, "derpkey", 7) == 0
           && sodium_hex2bin(key, KEY_BYTES, name + 7, 2 * KEY_BYTES, NULL, NULL, NULL) == 0;
}

void login_begin(struct client *client)
{
    struct generator *generator = client->generator;
    uint8_t request[1024];
    int length = snprintf((char *)request, sizeof request - 256,
                          "GET /derp HTTP/1.1\r\nHost: %s\r\nUser-Agent: loadgen\r\n"
                          "Connection: Upgrade\r\n%sUpgrade: DERP\r\n\r\n",
                          generator->server_name ? generator->server_name : "127.0.0.1",
                          generator->fast_start ? "Derp-Fast-Start: 1\r\n" : "");
    size_t total = (size_t)length;
    client->stage = generator->fast_start ? STAGE_SERVER_KEY : STAGE_UPGRADING;
    if (generator->fast_start) {
        if (!generator->has_server_key)
            generator->has_server_key =
                key_from_meta_certificate(client->ssl, generator->server_key);
        if (generator->has_server_key) {
            total += put_client_info(client, request + total);
            client->sent_client_info = true;
        }
    }
    client_write(client, request, total);
}

static void on_server_key(struct client *client, const uint8_t *payload, size_t length)
{
    struct generator *generator = client->generator;
    if (length < MAGIC_BYTES + KEY_BYTES
        || memcmp(payload, "DERP\xf0\x9f\x94\x91", MAGIC_BYTES) != 0) {
        client_lost(client, "the greeting is not a DERP ServerKey");
        return;
    }
    memcpy(generator->server_key, payload + MAGIC_BYTES, KEY_BYTES);
    generator->has_server_key = true;
    client->stage = STAGE_SERVER_INFO;
    if (!client->sent_client_info)
        send_client_info(client);
}

static void on_server_info(struct client *client, const uint8_t *payload, size_t length)
{
    uint8_t json[1024];
    size_t overhead = crypto_box_NONCEBYTES + crypto_box_MACBYTES;
    if (length < overhead || length > sizeof json
        || crypto_box_open_easy_afternm(json, payload + crypto_box_NONCEBYTES,
                                        length - crypto_box_NONCEBYTES, payload,
                                        client->identity->shared_key)
               != 0) {
        client_lost(client, "the box of ServerInfo does not open");
        return;
    }
    client->stage = STAGE_READY;
    client->generator->ready++;
}

size_t login_http_answer(struct client *client, const uint8_t *data, size_t length)
{
    const uint8_t *end = memmem(data, length, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    if (memcmp(data, "HTTP/1.1 101", 12) != 0) {
        char why[100];
        snprintf(why, sizeof why, "the server answered %.40s", (const char *)data);
        client_lost(client, why);
        return 0;
    }
    client->stage = STAGE_SERVER_KEY;
    return (size_t)(end - data) + 4;
}

void login_frame(struct client *client, uint8_t type, const uint8_t *payload, size_t length)
{
    if (client->stage == STAGE_SERVER_KEY && type == SERVER_KEY)
        on_server_key(client, payload, length);
    else if (client->stage == STAGE_SERVER_INFO && type == SERVER_INFO)
        on_server_info(client, payload, length);
    else
        client_lost(client, "a frame came out of order");
}
