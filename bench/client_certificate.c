/* Gives every TLS client of a program a certificate: wrk has no option for one.
 *
 *   LD_PRELOAD=client_certificate.so CLIENT_CERTIFICATE=chain.pem CLIENT_KEY=key.pem wrk ...
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

enum { PEM = 1 };

void *SSL_CTX_new(const void *method) {
    void *(*make)(const void *) = (void *(*)(const void *))dlsym(RTLD_NEXT, "SSL_CTX_new");
    int (*chain)(void *, const char *) =
        (int (*)(void *, const char *))dlsym(RTLD_DEFAULT, "SSL_CTX_use_certificate_chain_file");
    int (*key)(void *, const char *, int) =
        (int (*)(void *, const char *, int))dlsym(RTLD_DEFAULT, "SSL_CTX_use_PrivateKey_file");
    void *context = make(method);
    if (!context || chain(context, getenv("CLIENT_CERTIFICATE")) != 1
        || key(context, getenv("CLIENT_KEY"), PEM) != 1) {
        fputs("the client certificate cannot be used\n", stderr);
        exit(1);
    }
    return context;
}
