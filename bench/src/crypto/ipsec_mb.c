/* Intel's libipsec-mb behind three functions. The structures of its jobs are easier to fill from C than to repeat in
 * Rust. Used by the bench only. */

#include <intel-ipsec-mb.h>
#include <stdlib.h>
#include <string.h>

enum { AES128_GCM, AES192_GCM, AES256_GCM, CHACHA20_POLY1305, AES128_SHA1, AES128_SHA256, AES256_SHA256, AES256_SHA512 };

struct sa {
    struct gcm_key_data gcm;
    DECLARE_ALIGNED(uint32_t encrypt[15 * 4], 16);
    DECLARE_ALIGNED(uint32_t decrypt[15 * 4], 16);
    DECLARE_ALIGNED(uint8_t inner[64], 16);
    DECLARE_ALIGNED(uint8_t outer[64], 16);
    uint8_t key[32];
    uint8_t salt[4];
};

struct bench {
    IMB_MGR *manager;
    int suite;
    struct sa *sas;
    uint8_t nonces[IMB_MAX_JOBS][16];
    uint8_t tags[IMB_MAX_JOBS][64];
};

/* One packet: its ESP header, IV, payload and ICV lie one behind the other. */
struct packet {
    uint8_t *esp;
    uint32_t payload;
    uint32_t sa;
};

static void hmac_state(struct bench *bench, const uint8_t *key, size_t length, uint8_t pad, uint8_t *state) {
    uint8_t block[128];
    memset(block, pad, sizeof block);
    for (size_t i = 0; i < length; i++)
        block[i] ^= key[i];
    switch (bench->suite) {
    case AES128_SHA1: IMB_SHA1_ONE_BLOCK(bench->manager, block, state); break;
    case AES256_SHA512: IMB_SHA512_ONE_BLOCK(bench->manager, block, state); break;
    default: IMB_SHA256_ONE_BLOCK(bench->manager, block, state);
    }
}

static size_t icv_length(int suite) {
    return suite == AES128_SHA1 ? 12 : suite == AES256_SHA512 ? 32 : 16;
}

/* A manager that uses registers of up to so many bits, 128, 256 or all there are, and `count` SAs: their keys differ in the
 * first eight octets, which are the SA's number. */
void *ipsec_mb_new(int suite, int bits, uint32_t count, const uint8_t *key, const uint8_t *salt,
                   const uint8_t *auth_key, size_t auth_key_length) {
    struct bench *bench = calloc(1, sizeof *bench);
    if (!bench)
        return NULL;
    bench->suite = suite;
    bench->manager = alloc_mb_mgr(0);
    bench->sas = aligned_alloc(64, (sizeof(struct sa) + 63) / 64 * 64 * (size_t)count);
    if (!bench->manager || !bench->sas) {
        free(bench->sas);
        if (bench->manager)
            free_mb_mgr(bench->manager);
        free(bench);
        return NULL;
    }
    IMB_ARCH arch;
    switch (bits) {
    case 128: init_mb_mgr_sse(bench->manager); break;
    case 256: init_mb_mgr_avx2(bench->manager); break;
    default: init_mb_mgr_auto(bench->manager, &arch);
    }
    for (uint32_t n = 0; n < count; n++) {
        struct sa *sa = &bench->sas[n];
        memcpy(sa->key, key, sizeof sa->key);
        memcpy(sa->salt, salt, sizeof sa->salt);
        for (int i = 0; i < 8; i++)
            sa->key[i] = (uint8_t)((uint64_t)n >> (56 - 8 * i));
        switch (suite) {
        case AES128_GCM: IMB_AES128_GCM_PRE(bench->manager, sa->key, &sa->gcm); break;
        case AES192_GCM: IMB_AES192_GCM_PRE(bench->manager, sa->key, &sa->gcm); break;
        case AES256_GCM: IMB_AES256_GCM_PRE(bench->manager, sa->key, &sa->gcm); break;
        case CHACHA20_POLY1305: break;
        case AES128_SHA1:
        case AES128_SHA256: IMB_AES_KEYEXP_128(bench->manager, sa->key, sa->encrypt, sa->decrypt); break;
        default: IMB_AES_KEYEXP_256(bench->manager, sa->key, sa->encrypt, sa->decrypt);
        }
        if (suite >= AES128_SHA1) {
            hmac_state(bench, auth_key, auth_key_length, 0x36, sa->inner);
            hmac_state(bench, auth_key, auth_key_length, 0x5c, sa->outer);
        }
    }
    return bench;
}

void ipsec_mb_free(void *state) {
    struct bench *bench = state;
    free_mb_mgr(bench->manager);
    free(bench->sas);
    free(bench);
}

static void fill_aead(struct bench *bench, IMB_JOB *job, const struct packet *packet, struct sa *sa, uint8_t *nonce) {
    memcpy(nonce, sa->salt, 4);
    memcpy(nonce + 4, packet->esp + 8, 8);
    job->src = packet->esp;
    job->dst = packet->esp + 16;
    job->cipher_start_src_offset_in_bytes = 16;
    job->msg_len_to_cipher_in_bytes = packet->payload;
    job->hash_start_src_offset_in_bytes = 16;
    job->msg_len_to_hash_in_bytes = packet->payload;
    job->iv = nonce;
    job->iv_len_in_bytes = 12;
    if (bench->suite == CHACHA20_POLY1305) {
        job->cipher_mode = IMB_CIPHER_CHACHA20_POLY1305;
        job->hash_alg = IMB_AUTH_CHACHA20_POLY1305;
        job->enc_keys = job->dec_keys = sa->key;
        job->key_len_in_bytes = 32;
        job->u.CHACHA20_POLY1305.aad = packet->esp;
        job->u.CHACHA20_POLY1305.aad_len_in_bytes = 8;
    } else {
        job->cipher_mode = IMB_CIPHER_GCM;
        job->hash_alg = IMB_AUTH_AES_GMAC;
        job->enc_keys = job->dec_keys = &sa->gcm;
        job->key_len_in_bytes = bench->suite == AES128_GCM ? 16 : bench->suite == AES192_GCM ? 24 : 32;
        job->u.GCM.aad = packet->esp;
        job->u.GCM.aad_len_in_bytes = 8;
    }
}

static void fill_cbc(struct bench *bench, IMB_JOB *job, const struct packet *packet, struct sa *sa) {
    job->cipher_mode = IMB_CIPHER_CBC;
    job->hash_alg = bench->suite == AES128_SHA1     ? IMB_AUTH_HMAC_SHA_1
                    : bench->suite == AES256_SHA512 ? IMB_AUTH_HMAC_SHA_512
                                                    : IMB_AUTH_HMAC_SHA_256;
    job->enc_keys = sa->encrypt;
    job->dec_keys = sa->decrypt;
    job->key_len_in_bytes = bench->suite <= AES128_SHA256 ? 16 : 32;
    job->src = packet->esp;
    job->dst = packet->esp + 24;
    job->cipher_start_src_offset_in_bytes = 24;
    job->msg_len_to_cipher_in_bytes = packet->payload;
    job->hash_start_src_offset_in_bytes = 0;
    job->msg_len_to_hash_in_bytes = 24 + (uint64_t)packet->payload;
    job->iv = packet->esp + 8;
    job->iv_len_in_bytes = 16;
    job->u.HMAC._hashed_auth_key_xor_ipad = sa->inner;
    job->u.HMAC._hashed_auth_key_xor_opad = sa->outer;
}

static void fill(struct bench *bench, IMB_JOB *job, const struct packet *packet, int open, uint32_t place) {
    struct sa *sa = &bench->sas[packet->sa];
    uint8_t *icv;
    if (bench->suite < AES128_SHA1) {
        fill_aead(bench, job, packet, sa, bench->nonces[place]);
        icv = packet->esp + 16 + packet->payload;
    } else {
        fill_cbc(bench, job, packet, sa);
        icv = packet->esp + 24 + packet->payload;
    }
    job->cipher_direction = open ? IMB_DIR_DECRYPT : IMB_DIR_ENCRYPT;
    job->chain_order = open ? IMB_ORDER_HASH_CIPHER : IMB_ORDER_CIPHER_HASH;
    job->auth_tag_output = open ? bench->tags[place] : icv;
    job->auth_tag_output_len_in_bytes = icv_length(bench->suite);
    /* What a tag is compared with. */
    job->user_data = icv;
}

static uint32_t finish(struct bench *bench, IMB_JOB **jobs, uint32_t count, int open) {
    uint32_t good = 0;
    size_t length = icv_length(bench->suite);
    for (uint32_t i = 0; i < count; i++) {
        if (jobs[i]->status != IMB_STATUS_COMPLETED)
            continue;
        if (open && memcmp(jobs[i]->auth_tag_output, jobs[i]->user_data, length) != 0)
            continue;
        good++;
    }
    return good;
}

static uint32_t run_burst(struct bench *bench, int open, const struct packet *packets, uint32_t count) {
    IMB_JOB *jobs[IMB_MAX_BURST_SIZE];
    /* Nothing is queued: begin at the head of the ring, whose size 1.3 gets wrong while what is queued lies around its
     * end (an unsigned division of a negative difference), and then gives back jobs twice. */
    bench->manager->next_job = 0;
    bench->manager->earliest_job = -1;
    uint32_t got = IMB_GET_NEXT_BURST(bench->manager, count, jobs);
    for (uint32_t i = 0; i < got; i++)
        fill(bench, jobs[i], &packets[i], open, i);
    uint32_t done = finish(bench, jobs, IMB_SUBMIT_BURST_NOCHECK(bench->manager, got, jobs), open);
    for (uint32_t flushed; (flushed = IMB_FLUSH_BURST(bench->manager, IMB_MAX_BURST_SIZE, jobs)) > 0;)
        done += finish(bench, jobs, flushed, open);
    return done;
}

static uint32_t run_jobs(struct bench *bench, int open, const struct packet *packets, uint32_t count) {
    uint32_t done = 0;
    IMB_JOB *job;
    for (uint32_t i = 0; i < count; i++) {
        fill(bench, IMB_GET_NEXT_JOB(bench->manager), &packets[i], open, i % IMB_MAX_JOBS);
        for (job = IMB_SUBMIT_JOB_NOCHECK(bench->manager); job; job = IMB_GET_COMPLETED_JOB(bench->manager))
            done += finish(bench, &job, 1, open);
    }
    while ((job = IMB_FLUSH_JOB(bench->manager)))
        done += finish(bench, &job, 1, open);
    return done;
}

/* Seals or opens all packets in place, by the interface that is the faster one: bursts, unless there are more packets
 * than in a burst and lanes would have to run empty in between. How many it did: fewer than `count` if a tag was wrong
 * or a job failed. */
uint32_t ipsec_mb_run(void *state, int open, const struct packet *packets, uint32_t count) {
    struct bench *bench = state;
    uint32_t done = 0;
    if (count > IMB_MAX_BURST_SIZE && bench->suite >= AES128_SHA1)
        return run_jobs(bench, open, packets, count);
    for (uint32_t first = 0; first < count; first += IMB_MAX_BURST_SIZE) {
        uint32_t left = count - first;
        done += run_burst(bench, open, packets + first, left < IMB_MAX_BURST_SIZE ? left : IMB_MAX_BURST_SIZE);
    }
    return done;
}
