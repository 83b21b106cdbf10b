/* Open-loop load: requests at a fixed rate over a fixed number of connections, each latency counted
 * from the moment at which its request was due, whether or not anybody was there to send it.
 *
 *   open_loop PORT REQUESTS CONNECTIONS RATE WARM_S SECONDS
 *
 * REQUESTS: records of a 32-bit length (little-endian), one octet (1: the connection ends with it), and
 * the HTTP request.  RATE 0: as fast as the connections allow (for measuring capacity; latency then
 * counts from sending).  It never sleeps, so that the server never pays for waking it.
 * Prints JSON: requests, failures, seconds, percentiles of latency and of its own lateness in us.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SUB = 64, BUCKETS = 64 * SUB, BUFFER = 65536, EVENTS = 512 };

typedef struct { const char *at; uint32_t size; int ends; } Request;
typedef struct { int fd, busy; size_t got, want; uint64_t due; const Request *request; char buffer[BUFFER]; } Link;
typedef struct { uint64_t count[BUCKETS], all, most; } Histogram;

static struct sockaddr_in where;
static int poller;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Buckets of 1.6 % width: 64 to each power of two. */
static void note(Histogram *h, uint64_t ns) {
    int at = (int)ns;
    if (ns >= SUB) {
        int top = 63 - __builtin_clzll(ns) - 6;
        at = (top + 1) * SUB + (int)((ns >> top) & (SUB - 1));
    }
    h->count[at < BUCKETS ? at : BUCKETS - 1]++;
    h->all++;
    if (ns > h->most) h->most = ns;
}

static double part_us(const Histogram *h, double part) {
    uint64_t seen = 0, wanted = (uint64_t)(part * (double)h->all);
    for (int at = 0; at < BUCKETS; at++) {
        seen += h->count[at];
        if (seen > wanted) {
            if (at < SUB) return at / 1e3;
            int top = at / SUB - 1;
            return (double)((uint64_t)(SUB + at % SUB) << top) / 1e3;
        }
    }
    return (double)h->most / 1e3;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void open_link(Link *link) {
    int one = 1;
    link->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (link->fd < 0) die("socket");
    /* Its end needs no waiting: many connections a second would use all ports up. */
    struct linger none = {1, 0};
    setsockopt(link->fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    setsockopt(link->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(link->fd, (struct sockaddr *)&where, sizeof where)) die("connect");
    struct epoll_event event = {EPOLLIN, {.ptr = link}};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, link->fd, &event)) die("epoll_ctl");
}

static void send_on(Link *link, const Request *request, uint64_t due) {
    if (link->fd < 0) open_link(link);
    link->busy = 1;
    link->got = link->want = 0;
    link->due = due;
    link->request = request;
    if (send(link->fd, request->at, request->size, MSG_NOSIGNAL) != (ssize_t)request->size) die("send");
}

/* 1: whole, 0: not yet, -1: ended or not understood. */
static int receive_on(Link *link) {
    ssize_t got = recv(link->fd, link->buffer + link->got, BUFFER - 1 - link->got, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (got <= 0) return -1;
    link->got += (size_t)got;
    link->buffer[link->got] = 0;
    if (!link->want) {
        char *end = strstr(link->buffer, "\r\n\r\n");
        if (!end) return link->got < BUFFER - 1 ? 0 : -1;
        char *length = strcasestr(link->buffer, "\r\nContent-Length:");
        if (!length || length > end) return -1;
        link->want = (size_t)(end - link->buffer) + 4 + strtoul(length + 17, NULL, 10);
    }
    return link->got >= link->want ? (link->got == link->want ? 1 : -1) : 0;
}

int main(int argc, char **argv) {
    if (argc != 7) return 2;
    int links = atoi(argv[3]);
    double rate = atof(argv[4]), warm_s = atof(argv[5]), run_s = atof(argv[6]);
    where = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    FILE *file = fopen(argv[2], "rb");
    if (!file) die(argv[2]);
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file), count = 0;
    rewind(file);
    char *all = malloc(size);
    if (!all || fread(all, 1, size, file) != size) die("read");
    Request *requests = malloc((size / 5 + 1) * sizeof *requests);
    for (size_t at = 0; at + 5 <= size; count++) {
        uint32_t length;
        memcpy(&length, all + at, 4);
        requests[count] = (Request){all + at + 5, length, all[at + 4]};
        at += 5 + length;
    }
    if (!count || links < 1) return 2;
    poller = epoll_create1(0);
    Link *link = calloc((size_t)links, sizeof *link), **idle = malloc((size_t)links * sizeof *idle);
    int free_links = 0;
    for (int at = links - 1; at >= 0; at--) {
        open_link(&link[at]);
        idle[free_links++] = &link[at];
    }
    static Histogram latency, late;
    uint64_t begun = now_ns(), counted = begun + (uint64_t)(warm_s * 1e9), until = counted + (uint64_t)(run_s * 1e9);
    uint64_t sent = 0, failures = 0, done = 0, now = begun, bytes = 0;
    struct epoll_event events[EVENTS];
    while (now < until) {
        while (free_links) {
            uint64_t due = rate > 0 ? begun + (uint64_t)((double)sent * 1e9 / rate) : now;
            if (due > now) break;
            /* First in, first out would need a ring; the last one free is as good: all are alike. */
            Link *chosen = idle[--free_links];
            if (due >= counted && rate > 0) note(&late, now - due);
            send_on(chosen, &requests[sent++ % count], due);
            now = now_ns();
        }
        int ready = epoll_wait(poller, events, EVENTS, 0);
        now = now_ns();
        for (int at = 0; at < ready; at++) {
            Link *from = events[at].data.ptr;
            int state = receive_on(from);
            if (!state) continue;
            int good = state > 0 && from->busy && !strncmp(from->buffer, "HTTP/1.", 7) && !strncmp(from->buffer + 9, "200", 3);
            now = now_ns();
            if (from->due >= counted || (!from->busy && now >= counted)) {
                if (good) note(&latency, now - from->due), done++, bytes += from->got;
                else failures++;
            }
            if (!good || from->request->ends) {
                close(from->fd);
                from->fd = -1;
            }
            if (from->busy) idle[free_links++] = from;
            from->busy = 0;
        }
    }
    printf("{\"requests\": %llu, \"failures\": %llu, \"seconds\": %.6f, \"bytes\": %llu,\n",
           (unsigned long long)done, (unsigned long long)failures, (double)(now - counted) / 1e9, (unsigned long long)bytes);
    /* Due but not sent: beyond capacity, nothing that was sent tells of these. */
    double due = rate > 0 ? (double)(now - begun) / 1e9 * rate : (double)sent;
    printf(" \"unanswered\": %d, \"unsent\": %.0f,\n", links - free_links, due > (double)sent ? due - (double)sent : 0);
    const Histogram *each[] = {&latency, &late};
    const char *names[] = {"latency_us", "late_us"};
    for (int at = 0; at < 2; at++)
        printf(" \"%s\": {\"p50\": %.2f, \"p99\": %.2f, \"p999\": %.2f, \"max\": %.2f}%s\n", names[at], part_us(each[at], 0.5),
               part_us(each[at], 0.99), part_us(each[at], 0.999), (double)each[at]->most / 1e3, at ? "}" : ",");
    return 0;
}
