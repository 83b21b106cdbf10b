/* Loaded into wrk: it never sleeps, and has a certificate for TLS.  wrk has no option for either.
 *
 *   LD_PRELOAD=generator.so [CLIENT_CERTIFICATE=chain.pem CLIENT_KEY=key.pem] wrk ...
 *
 * Whoever writes to a client that sleeps on the same machine pays for waking it: 10 to 20 us a write on a
 * virtual machine, which a client elsewhere would not cost.  A slow server would pay it with every
 * answer, a fast one never, because its client has no time to sleep.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { PEM = 1 };
struct epoll_event;

static void *next(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    return found ? found : dlsym(RTLD_DEFAULT, name);
}

static long long now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

int epoll_wait(int poller, struct epoll_event *events, int most, int timeout_ms) {
    static int (*look)(int, struct epoll_event *, int, int);
    if (!look) look = (int (*)(int, struct epoll_event *, int, int))next("epoll_wait");
    long long until_ms = 0;
    for (;;) {
        int found = look(poller, events, most, 0);
        if (found || !timeout_ms) return found;
        if (timeout_ms > 0) {
            if (!until_ms) until_ms = now_ms() + timeout_ms;
            else if (now_ms() >= until_ms) return 0;
        }
    }
}

void *SSL_CTX_new(const void *method) {
    void *(*make)(const void *) = (void *(*)(const void *))next("SSL_CTX_new");
    int (*chain)(void *, const char *) =
        (int (*)(void *, const char *))next("SSL_CTX_use_certificate_chain_file");
    int (*key)(void *, const char *, int) = (int (*)(void *, const char *, int))next("SSL_CTX_use_PrivateKey_file");
    const char *certificate = getenv("CLIENT_CERTIFICATE");
    void *context = make(method);
    if (context && certificate
        && (chain(context, certificate) != 1 || key(context, getenv("CLIENT_KEY"), PEM) != 1)) {
        fputs("the client certificate cannot be used\n", stderr);
        exit(1);
    }
    return context;
}
