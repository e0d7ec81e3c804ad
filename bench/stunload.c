/*
 * STUN load on a server of this machine; prints one JSON object.
 *
 *   stunload PORT PID SECONDS WINDOW RATE
 *
 * RATE 0: closed loop, WINDOW requests in flight. RATE > 0: that many requests a second, one
 * datagram at a time at its due time (busy waiting), so that the server is woken for each.
 * The first 0.3 s warm up. The server's CPU time comes from the process clock of PID, in
 * nanoseconds, all threads. Every answer is checked: header, address and port, and that its
 * transaction id is one that was asked and not yet answered. The address may come as IPv4 or,
 * from servers on a dual-stack socket that do not unmap it, as ::ffff:127.0.0.1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, REQUEST = 40, RING = 1 << 16 };

static const double WARM_UP_S = 0.3, LOST_AFTER_S = 0.25;

static uint32_t crc_table[256];
static unsigned char request[BATCH][REQUEST], answer[BATCH][128];
static struct mmsghdr out[BATCH], in[BATCH];
static struct iovec out_iov[BATCH], in_iov[BATCH];
static unsigned char pending[RING]; /* by transaction number modulo RING */
static unsigned char own_port[2], own_address[16]; /* port masked, address mapped and plain */
static uint64_t next_number;

static void fail(const char *what)
{
    fprintf(stderr, "stunload: %s: %s\n", what, errno ? strerror(errno) : "wrong");
    exit(1);
}

static double seconds_of(clockid_t clock)
{
    struct timespec t;
    if (clock_gettime(clock, &t))
        fail("clock of the server process");
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void fill_crc_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
        crc_table[i] = c;
    }
}

static uint32_t fingerprint(const unsigned char *bytes, int length)
{
    uint32_t c = 0xffffffffu;
    for (int i = 0; i < length; i++)
        c = crc_table[(c ^ bytes[i]) & 255] ^ c >> 8;
    return ~c ^ 0x5354554eu;
}

static void prepare(void)
{
    static const unsigned char frame[REQUEST] =
        "\x00\x01\x00\x14\x21\x12\xa4\x42____________\x80\x22\x00\x08tailnode\x80\x28\x00\x04";
    fill_crc_table();
    for (int i = 0; i < BATCH; i++) {
        memcpy(request[i], frame, REQUEST);
        memset(request[i] + 8, 0, 12);
        out_iov[i] = (struct iovec){request[i], REQUEST};
        in_iov[i] = (struct iovec){answer[i], sizeof answer[i]};
        out[i].msg_hdr = (struct msghdr){.msg_iov = &out_iov[i], .msg_iovlen = 1};
        in[i].msg_hdr = (struct msghdr){.msg_iov = &in_iov[i], .msg_iovlen = 1};
    }
}

static int connect_to(int port)
{
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(port)}, self;
    socklen_t length = sizeof self;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), space = 4 << 20;
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &space, sizeof space);
    if (fd < 0 || connect(fd, (struct sockaddr *)&server, sizeof server)
        || getsockname(fd, (struct sockaddr *)&self, &length))
        fail("socket");
    uint16_t masked = htons(ntohs(self.sin_port) ^ 0x2112);
    memcpy(own_port, &masked, 2);
    own_address[10] = own_address[11] = 0xff;
    memcpy(own_address + 12, &self.sin_addr, 4);
    return fd;
}

static int send_some(int fd, int count)
{
    for (int i = 0; i < count; i++) {
        uint64_t number = next_number + i;
        memcpy(request[i] + 8, &number, 8);
        uint32_t crc = htonl(fingerprint(request[i], 32));
        memcpy(request[i] + 36, &crc, 4);
    }
    int sent = sendmmsg(fd, out, count, 0);
    if (sent < 0) {
        if (errno == EAGAIN || errno == ENOBUFS || errno == ECONNREFUSED)
            return 0; /* refused: not listening yet, or not any more, which shows as lost */
        fail("send");
    }
    for (int i = 0; i < sent; i++)
        pending[(next_number + i) % RING] = 1;
    next_number += sent;
    return sent;
}

static int is_right(const unsigned char *got, unsigned length)
{
    int size = length == 44 ? 16 : 4;
    unsigned char head[] = {1, 1, 0, 8 + size, 0x21, 0x12, 0xa4, 0x42};
    unsigned char tail[] = {0, 0x20, 0, 4 + size, 0, size == 16 ? 2 : 1};
    if (length != 28u + size || memcmp(got, head, 8) || memcmp(got + 20, tail, 6)
        || memcmp(got + 26, own_port, 2))
        return 0;
    for (int i = 0; i < size; i++)
        if ((got[28 + i] ^ got[4 + i]) != own_address[16 - size + i])
            return 0;
    return 1;
}

static int receive_some(int fd)
{
    int count = recvmmsg(fd, in, BATCH, MSG_DONTWAIT, NULL);
    if (count < 0) {
        if (errno == EAGAIN || errno == ECONNREFUSED)
            return 0;
        fail("receive");
    }
    for (int i = 0; i < count; i++) {
        uint64_t number;
        const unsigned char *got = answer[i];
        memcpy(&number, got + 8, 8);
        errno = 0;
        if (!is_right(got, in[i].msg_len) || !pending[number % RING])
            fail("answer");
        pending[number % RING] = 0;
    }
    return count;
}

struct totals {
    long asked, answered, lost;
    double server_cpu, own_cpu;
};

static void take_totals(struct totals *t, clockid_t server_clock, long asked, long answered,
                        long lost)
{
    *t = (struct totals){asked, answered, lost, seconds_of(server_clock),
                         seconds_of(CLOCK_PROCESS_CPUTIME_ID)};
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: stunload PORT PID SECONDS WINDOW RATE\n");
        return 2;
    }
    int window = atoi(argv[4]), measuring = 0;
    double duration = atof(argv[3]), rate = atof(argv[5]);
    clockid_t server_clock;
    if (window < 1 || window > RING / 4 || duration <= 0 || rate < 0)
        fail("argument");
    if (clock_getcpuclockid(atoi(argv[2]), &server_clock))
        fail("PID");
    int fd = connect_to(atoi(argv[1]));
    prepare();
    double start = seconds_of(CLOCK_MONOTONIC), due = start, last_answer = start;
    double measured_from = 0, now;
    long asked = 0, answered = 0, lost = 0;
    struct totals from = {0}, to;
    for (;;) {
        now = seconds_of(CLOCK_MONOTONIC);
        if (!measuring && now - start >= WARM_UP_S) {
            measuring = 1;
            take_totals(&from, server_clock, asked, answered, lost);
            measured_from = now = seconds_of(CLOCK_MONOTONIC);
        } else if (measuring && now - measured_from >= duration) {
            break;
        }
        int want = window - (int)(asked - answered - lost);
        if (rate > 0) {
            want = now >= due;
            if (want) /* after a stall go on at the rate, do not catch up in a burst */
                due = now - due > 5e-3 ? now : due + 1 / rate;
        }
        if (want > 0)
            asked += send_some(fd, want < BATCH ? want : BATCH);
        int count = receive_some(fd);
        answered += count;
        if (count) {
            last_answer = now;
        } else if (rate == 0) {
            struct pollfd wait = {fd, POLLIN, 0};
            poll(&wait, 1, 20);
            if (now - last_answer > LOST_AFTER_S) {
                lost = asked - answered;
                last_answer = now;
            }
        }
    }
    take_totals(&to, server_clock, asked, answered, lost);
    if (rate > 0) { /* what has not come by now is lost, but for the last few */
        for (int i = 0; i < 1000; i++) {
            struct pollfd wait = {fd, POLLIN, 0};
            if (poll(&wait, 1, 20) <= 0)
                break;
            answered += receive_some(fd);
        }
        to.lost = asked - answered;
    }
    double wall = now - measured_from;
    printf("{\"seconds\": %.6f, \"window\": %d, \"rate\": %.0f, \"asked\": %ld, "
           "\"answered\": %ld, \"lost\": %ld, \"server_cpu_ns\": %.0f",
           wall, rate > 0 ? 0 : window, rate, to.asked - from.asked, to.answered - from.answered,
           to.lost - from.lost, (to.server_cpu - from.server_cpu) * 1e9);
    if (rate == 0) /* at a rate it is always busy */
        printf(", \"generator_busy\": %.4f", (to.own_cpu - from.own_cpu) / wall);
    printf("}\n");
    return 0;
}
