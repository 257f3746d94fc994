/* OpenSSL's own C code for one packet, sealed as OpenVPN does, so many times, for benches/instructions to count:
 *
 *     openssl CIPHER BYTES COUNT [open]
 *
 * To open one is the same work and a comparison of tags, in constant time as OpenSSL makes it without assembly.
 * Only the parts that do the work are compiled; what EVP adds around them is left out, in OpenSSL's favour. */
#include <stdlib.h>
#include <string.h>
#include <openssl/aes.h>
#include "crypto/chacha.h"
#include "crypto/modes.h"
#include "crypto/poly1305.h"

/* What the compiled parts refer to and never reach. */
void OPENSSL_cleanse(void *memory, size_t len) { memset(memory, 0, len); }
void *CRYPTO_malloc(size_t len, const char *file, int line) { (void)file; (void)line; return malloc(len); }
void CRYPTO_free(void *memory, const char *file, int line) { (void)file; (void)line; free(memory); }
void CRYPTO_clear_free(void *memory, size_t len, const char *file, int line) { (void)len; (void)file; (void)line; free(memory); }
/* The compiler may not stop at the first difference. */
int CRYPTO_memcmp(const void *a, const void *b, size_t len) {
    const volatile unsigned char *left = a, *right = b;
    unsigned char any = 0;
    while (len--)
        any |= *left++ ^ *right++;
    return any;
}

static unsigned char key[32] = {7}, nonce[12] = {5}, header[8] = {0x48, 0, 0, 1}, tag[16], theirs[16], data[2048];
static volatile int wrong;

static unsigned int word(const unsigned char *bytes) {
    return bytes[0] | bytes[1] << 8 | bytes[2] << 16 | (unsigned int)bytes[3] << 24;
}

static void chacha20_poly1305(size_t len) {
    static const unsigned char zero[64];
    unsigned int words[8], counter[4] = {0, word(nonce), word(nonce + 4), word(nonce + 8)};
    unsigned char block[64], lengths[16] = {sizeof header};
    POLY1305 poly;
    for (int at = 0; at < 8; at++)
        words[at] = word(key + 4 * at);
    ChaCha20_ctr32(block, zero, sizeof block, words, counter);
    Poly1305_Init(&poly, block);
    Poly1305_Update(&poly, header, sizeof header);
    Poly1305_Update(&poly, zero, 16 - sizeof header);
    counter[0] = 1;
    ChaCha20_ctr32(data, data, len, words, counter);
    Poly1305_Update(&poly, data, len);
    Poly1305_Update(&poly, zero, (16 - len % 16) % 16);
    lengths[8] = len & 0xff;
    lengths[9] = len >> 8;
    Poly1305_Update(&poly, lengths, sizeof lengths);
    Poly1305_Final(&poly, tag);
}

static void aes_gcm(GCM128_CONTEXT *context, size_t len) {
    CRYPTO_gcm128_setiv(context, nonce, sizeof nonce);
    CRYPTO_gcm128_aad(context, header, sizeof header);
    CRYPTO_gcm128_encrypt(context, data, data, len);
    CRYPTO_gcm128_tag(context, tag, sizeof tag);
}

int main(int count, char **arguments) {
    AES_KEY aes;
    GCM128_CONTEXT context;
    if (count != 4 && count != 5)
        return 2;
    size_t len = strtoul(arguments[2], NULL, 10);
    int bits = strstr(arguments[1], "128") ? 128 : 256, gcm = strstr(arguments[1], "GCM") != NULL;
    if (len > sizeof data)
        return 2;
    AES_set_encrypt_key(key, bits, &aes);
    CRYPTO_gcm128_init(&context, &aes, (block128_f)AES_encrypt);
    for (long left = strtol(arguments[3], NULL, 10); left > 0; left--) {
        nonce[0]++;
        if (gcm)
            aes_gcm(&context, len);
        else
            chacha20_poly1305(len);
        if (count == 5)
            wrong = CRYPTO_memcmp(tag, theirs, sizeof tag);
    }
    return tag[0] == data[0] && 0;
}
