/* Open-loop load: requests at a fixed rate over a fixed number of connections, each latency counted
 * from the moment at which its request was due, whether or not anybody was there to send it.
 *
 *   open_loop PORT REQUESTS CONNECTIONS RATE WARM_S SECONDS
 *
 * REQUESTS: records of a 32-bit length (little-endian), one octet (1: the connection ends with it), and
 * the HTTP request.  RATE 0: as fast as the connections allow (for measuring capacity; latency then
 * counts from sending).  It never sleeps, so that the server never pays for waking it.  SIGTERM ends it
 * early.
 *
 * Prints JSON about the time after WARM_S:
 *   statuses    OCSP answers that came, by responseStatus, 0 (successful) to 6
 *   failures    all else that came instead of an answer
 *   unanswered  sent and, a second after the end, not answered
 *   unsent      due by the end and never sent
 *   sent        requests, those of WARM_S included
 *   latency_us  of successful answers to what was due in this time; what has none stands in it as old as it was
 *   late_us     from when a request was due until it was sent
 *   own_late_us the part of that in which a connection was free: the generator's own fault
 *   busy        share of the time in which it had something to do
 *   away        share of the time in which it had no processor
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SUB = 64, BUCKETS = 64 * SUB, BUFFER = 65536, EVENTS = 512, STATUSES = 7 };
enum { PARTIAL, WHOLE, ENDED, WRONG };

typedef struct { const char *at; uint32_t size; int ends; } Request;
/* head: octets before the body, 0 while they are not known. */
typedef struct { int fd, busy, connecting; size_t got, head, want; uint64_t due; const Request *request; char buffer[BUFFER]; } Link;
typedef struct { uint64_t count[BUCKETS], all, most; } Histogram;

static struct sockaddr_in where;
static int poller;
static volatile sig_atomic_t told_to_end;

static void on_sigterm(int number) {
    (void)number;
    told_to_end = 1;
}

static uint64_t clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

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

/* Begins to connect: whoever waited for that would send nothing on any other connection meanwhile. */
static void open_link(Link *link) {
    int one = 1;
    link->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (link->fd < 0) die("socket");
    /* Its end needs no waiting: many connections a second would use all ports up. */
    struct linger none = {1, 0};
    setsockopt(link->fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    setsockopt(link->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(link->fd, (struct sockaddr *)&where, sizeof where) && errno != EINPROGRESS) die("connect");
    link->connecting = 1;
    struct epoll_event event = {EPOLLIN | EPOLLOUT, {.ptr = link}};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, link->fd, &event)) die("epoll_ctl");
}

static int sent_whole(const Link *link) {
    return send(link->fd, link->request->at, link->request->size, MSG_NOSIGNAL) == (ssize_t)link->request->size;
}

/* Connected, or not: a request that has waited for it is sent. */
static void on_connected(Link *link) {
    socklen_t size = sizeof errno;
    if (getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &errno, &size) || errno) die("connect");
    struct epoll_event event = {EPOLLIN, {.ptr = link}};
    if (epoll_ctl(poller, EPOLL_CTL_MOD, link->fd, &event)) die("epoll_ctl");
    link->connecting = 0;
    if (link->busy && !sent_whole(link)) die("send");
}

static void send_on(Link *link, const Request *request, uint64_t due) {
    if (link->fd < 0) open_link(link);
    link->busy = 1;
    link->got = link->head = link->want = 0;
    link->due = due;
    link->request = request;
    if (link->connecting || sent_whole(link)) return;
    /* The server may close what was idle for long, and that may not have been read yet. */
    close(link->fd);
    open_link(link);
}

static int receive_on(Link *link) {
    ssize_t got = recv(link->fd, link->buffer + link->got, BUFFER - 1 - link->got, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return PARTIAL;
    if (got <= 0) return ENDED;
    link->got += (size_t)got;
    link->buffer[link->got] = 0;
    if (!link->want) {
        char *end = strstr(link->buffer, "\r\n\r\n");
        if (!end) return link->got < BUFFER - 1 ? PARTIAL : WRONG;
        char *length = strcasestr(link->buffer, "\r\nContent-Length:");
        if (!length || length > end) return WRONG;
        link->head = (size_t)(end - link->buffer) + 4;
        link->want = link->head + strtoul(length + 17, NULL, 10);
    }
    return link->got < link->want ? PARTIAL : link->got == link->want ? WHOLE : WRONG;
}

/* The responseStatus of the OCSPResponse that came whole, -1 if it is none (RFC 6960, 4.2.1). */
static int status_of(const Link *link) {
    if (strncmp(link->buffer, "HTTP/1.", 7) || strncmp(link->buffer + 9, "200", 3)) return -1;
    const unsigned char *body = (const unsigned char *)link->buffer + link->head;
    size_t size = link->want - link->head;
    if (size < 5 || body[0] != 0x30) return -1;
    size_t at = 2 + (body[1] & 0x80 ? body[1] & 0x7f : 0);
    if (at + 3 > size || body[at] != 0x0a || body[at + 1] != 1 || body[at + 2] >= STATUSES) return -1;
    return body[at + 2];
}

int main(int argc, char **argv) {
    if (argc != 7) return 2;
    int links = atoi(argv[3]);
    double rate = atof(argv[4]), warm_s = atof(argv[5]), run_s = atof(argv[6]);
    signal(SIGTERM, on_sigterm);
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
    /* A ring: free_links of them from next_idle on. */
    int free_links = 0, next_idle = 0;
    for (int at = links - 1; at >= 0; at--) {
        open_link(&link[at]);
        idle[free_links++] = &link[at];
    }
    static Histogram latency, late, own_late;
    const uint64_t begun = now_ns(), counted = begun + (uint64_t)(warm_s * 1e9);
    uint64_t until = counted + (uint64_t)(run_s * 1e9), now = begun, free_since = begun;
    uint64_t sent = 0, failures = 0, statuses[STATUSES] = {0}, nothing_to_do = 0, cpu_begun = 0, cpu_ended = 0;
    struct epoll_event events[EVENTS];
    /* What is on its way at the end is waited for. */
    while (now < until || (free_links < links && now < until + 1000000000u)) {
        const uint64_t turn_begun = now, sent_before = sent;
        if (told_to_end && now < until) until = now;
        if (!cpu_begun && now >= counted) cpu_begun = clock_ns(CLOCK_THREAD_CPUTIME_ID);
        if (!cpu_ended && now >= until) cpu_ended = clock_ns(CLOCK_THREAD_CPUTIME_ID);
        while (free_links && now < until) {
            uint64_t due = rate > 0 ? begun + (uint64_t)((double)sent * 1e9 / rate) : now;
            if (due > now) break;
            /* The one that has been free for longest: all are used, and none so seldom that the server ends it. */
            Link *chosen = idle[next_idle];
            next_idle = (next_idle + 1) % links;
            free_links--;
            if (due >= counted && rate > 0) {
                note(&late, now - due);
                note(&own_late, now - (due > free_since ? due : free_since));
            }
            send_on(chosen, &requests[sent++ % count], due);
            now = now_ns();
        }
        int ready = epoll_wait(poller, events, EVENTS, 0);
        now = now_ns();
        for (int at = 0; at < ready; at++) {
            Link *from = events[at].data.ptr;
            if (from->connecting) {
                on_connected(from);
                continue;
            }
            int state = receive_on(from);
            if (state == PARTIAL) continue;
            int status = state == WHOLE && from->busy ? status_of(from) : -1;
            now = now_ns();
            if (now >= counted && now < until) {
                if (status >= 0) statuses[status]++;
                /* A server may close what is idle. */
                else if (from->busy || state != ENDED) failures++;
            }
            if (!status && from->due >= counted) note(&latency, now - from->due);
            if (status < 0 || from->request->ends) {
                close(from->fd);
                from->fd = -1;
            }
            if (from->busy) {
                if (!free_links) free_since = now;
                idle[(next_idle + free_links++) % links] = from;
            }
            from->busy = 0;
        }
        if (!ready && sent == sent_before && now > counted && turn_begun < until)
            nothing_to_do += (now < until ? now : until) - (turn_begun > counted ? turn_begun : counted);
    }
    if (!cpu_ended) cpu_ended = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    /* Whatever was due and has no answer is at least so old: without it an overloaded server would look quick. */
    for (int at = 0; at < links; at++)
        if (link[at].busy && link[at].due >= counted) note(&latency, now - link[at].due);
    uint64_t unsent = 0;
    for (uint64_t due; rate > 0 && (due = begun + (uint64_t)((double)(sent + unsent) * 1e9 / rate)) < until; unsent++)
        if (due >= counted) note(&latency, until - due);
    double seconds = until > counted ? (double)(until - counted) / 1e9 : 0, whole = seconds > 0 ? seconds : 1;
    printf("{\"failures\": %llu, \"seconds\": %.6f, \"statuses\": [", (unsigned long long)failures, seconds);
    for (int at = 0; at < STATUSES; at++) printf("%s%llu", at ? ", " : "", (unsigned long long)statuses[at]);
    printf("],\n \"sent\": %llu, \"unanswered\": %d, \"unsent\": %llu,\n", (unsigned long long)sent, links - free_links,
           (unsigned long long)unsent);
    printf(" \"busy\": %.4f, \"away\": %.4f,\n", 1 - (double)nothing_to_do / 1e9 / whole,
           1 - (double)(cpu_ended - cpu_begun) / 1e9 / whole);
    const Histogram *each[] = {&latency, &late, &own_late};
    const char *names[] = {"latency_us", "late_us", "own_late_us"};
    for (int at = 0; at < 3; at++)
        printf(" \"%s\": {\"p50\": %.2f, \"p99\": %.2f, \"p999\": %.2f, \"max\": %.2f}%s\n", names[at], part_us(each[at], 0.5),
               part_us(each[at], 0.99), part_us(each[at], 0.999), (double)each[at]->most / 1e3, at < 2 ? "," : "}");
    return 0;
}
