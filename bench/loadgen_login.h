/* From the finished TLS handshake to a client that is logged in: HTTP upgrade, ServerKey,
 * ClientInfo, ServerInfo. */
#ifndef LOADGEN_LOGIN_H
#define LOADGEN_LOGIN_H

#include "loadgen_client.h"

void identity_create(struct identity *identity);
/* Computes the box key; the server's key must be known (after one login). */
void identity_share(struct identity *identity, const struct generator *generator);

/* Writes the upgrade request. With fast start ClientInfo follows in the same record, as stock
 * clients do it, if the certificate told the server's key. */
void login_begin(struct client *client);
/* Passes the HTTP answer; returns its length, 0 while it is incomplete. */
size_t login_http_answer(struct client *client, const uint8_t *data, size_t length);
/* Takes a frame of a client that is not logged in yet. */
void login_frame(struct client *client, uint8_t type, const uint8_t *payload, size_t length);

#endif
