// A plugin for the strongSwan 6.0.1 of Debian 13, which speaks RFC 9370's additional key exchanges but is built without
// ML-KEM: the key encapsulation itself comes from the OpenSSL 3.5 beside it. Debian ships no headers of either for this,
// so what the interface consists of is declared here: the plugin's and the key exchange's tables of functions, and the
// list of what the plugin provides.
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { ML_KEM_768 = 36, PUBLIC_KEY = 1184, CIPHERTEXT = 1088, SECRET = 32 };

struct chunk {
	unsigned char *data;
	size_t length;
};

struct key_exchange {
	bool (*get_shared_secret)(struct key_exchange *, struct chunk *);
	bool (*set_public_key)(struct key_exchange *, struct chunk);
	bool (*get_public_key)(struct key_exchange *, struct chunk *);
	bool (*set_private_key)(struct key_exchange *, struct chunk);
	int (*get_method)(struct key_exchange *);
	void (*destroy)(struct key_exchange *);
};

struct feature {
	enum { PROVIDE = 0, REGISTER = 3 } kind;
	enum { KEY_EXCHANGE = 9 } type;
	union {
		int method;
		struct {
			bool final;
			void *constructor;
		};
	};
};

struct plugin {
	char *(*get_name)(struct plugin *);
	int (*get_features)(struct plugin *, struct feature **);
	bool (*reload)(struct plugin *);
	void (*destroy)(struct plugin *);
};

typedef struct evp_pkey_st EVP_PKEY;
typedef struct evp_pkey_ctx_st EVP_PKEY_CTX;
EVP_PKEY *EVP_PKEY_Q_keygen(void *, const char *, const char *, ...);
EVP_PKEY *EVP_PKEY_new_raw_public_key_ex(void *, const char *, const char *, const unsigned char *, size_t);
int EVP_PKEY_get_raw_public_key(const EVP_PKEY *, unsigned char *, size_t *);
void EVP_PKEY_free(EVP_PKEY *);
EVP_PKEY_CTX *EVP_PKEY_CTX_new_from_pkey(void *, EVP_PKEY *, const char *);
void EVP_PKEY_CTX_free(EVP_PKEY_CTX *);
int EVP_PKEY_encapsulate_init(EVP_PKEY_CTX *, const void *);
int EVP_PKEY_encapsulate(EVP_PKEY_CTX *, unsigned char *, size_t *, unsigned char *, size_t *);
int EVP_PKEY_decapsulate_init(EVP_PKEY_CTX *, const void *);
int EVP_PKEY_decapsulate(EVP_PKEY_CTX *, unsigned char *, size_t *, const unsigned char *, size_t);

struct mlkem {
	struct key_exchange public;
	// The initiator's pair; none at the responder.
	EVP_PKEY *pair;
	unsigned char ciphertext[CIPHERTEXT];
	unsigned char secret[SECRET];
	bool has_secret;
};

static bool copy(struct chunk *to, const unsigned char *from, size_t length)
{
	to->data = malloc(length);
	to->length = length;
	if (to->data)
		memcpy(to->data, from, length);
	return to->data != NULL;
}

static bool get_shared_secret(struct key_exchange *public, struct chunk *secret)
{
	struct mlkem *this = (struct mlkem *)public;
	return this->has_secret && copy(secret, this->secret, SECRET);
}

static bool encapsulate(struct mlkem *this, struct chunk key)
{
	size_t ciphertext = CIPHERTEXT, secret = SECRET;
	EVP_PKEY *peer = EVP_PKEY_new_raw_public_key_ex(NULL, "ML-KEM-768", NULL, key.data, key.length);
	EVP_PKEY_CTX *context = peer ? EVP_PKEY_CTX_new_from_pkey(NULL, peer, NULL) : NULL;
	bool done = context && EVP_PKEY_encapsulate_init(context, NULL) == 1 &&
		EVP_PKEY_encapsulate(context, this->ciphertext, &ciphertext, this->secret, &secret) == 1;
	EVP_PKEY_CTX_free(context);
	EVP_PKEY_free(peer);
	return done;
}

static bool decapsulate(struct mlkem *this, struct chunk ciphertext)
{
	size_t secret = SECRET;
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(NULL, this->pair, NULL);
	bool done = context && EVP_PKEY_decapsulate_init(context, NULL) == 1 &&
		EVP_PKEY_decapsulate(context, this->secret, &secret, ciphertext.data, ciphertext.length) == 1;
	EVP_PKEY_CTX_free(context);
	return done;
}

// The responder is given a public key, the initiator a ciphertext.
static bool set_public_key(struct key_exchange *public, struct chunk value)
{
	struct mlkem *this = (struct mlkem *)public;
	if (value.length != (this->pair ? CIPHERTEXT : PUBLIC_KEY))
		return false;
	this->has_secret = this->pair ? decapsulate(this, value) : encapsulate(this, value);
	return this->has_secret;
}

// The responder answers with the ciphertext, the initiator begins with a public key.
static bool get_public_key(struct key_exchange *public, struct chunk *value)
{
	struct mlkem *this = (struct mlkem *)public;
	unsigned char key[PUBLIC_KEY];
	size_t length = PUBLIC_KEY;
	if (this->has_secret && !this->pair)
		return copy(value, this->ciphertext, CIPHERTEXT);
	if (!this->pair)
		this->pair = EVP_PKEY_Q_keygen(NULL, NULL, "ML-KEM-768");
	return this->pair && EVP_PKEY_get_raw_public_key(this->pair, key, &length) == 1 && copy(value, key, length);
}

static int get_method(struct key_exchange *public)
{
	(void)public;
	return ML_KEM_768;
}

static void destroy(struct key_exchange *public)
{
	struct mlkem *this = (struct mlkem *)public;
	EVP_PKEY_free(this->pair);
	free(this);
}

static struct key_exchange *create(int method)
{
	struct mlkem *this = method == ML_KEM_768 ? calloc(1, sizeof *this) : NULL;
	if (!this)
		return NULL;
	this->public.get_shared_secret = get_shared_secret;
	this->public.set_public_key = set_public_key;
	this->public.get_public_key = get_public_key;
	this->public.get_method = get_method;
	this->public.destroy = destroy;
	return &this->public;
}

static char *plugin_name(struct plugin *plugin)
{
	(void)plugin;
	return "mlkem";
}

static int plugin_features(struct plugin *plugin, struct feature **features)
{
	static struct feature all[2];
	(void)plugin;
	all[0] = (struct feature){ .kind = REGISTER, .type = KEY_EXCHANGE, .constructor = create };
	all[1] = (struct feature){ .kind = PROVIDE, .type = KEY_EXCHANGE, .method = ML_KEM_768 };
	*features = all;
	return 2;
}

static void plugin_destroy(struct plugin *plugin)
{
	free(plugin);
}

// What strongSwan looks for in libstrongswan-mlkem.so.
struct plugin *mlkem_plugin_create(void)
{
	struct plugin *this = calloc(1, sizeof *this);
	if (this) {
		this->get_name = plugin_name;
		this->get_features = plugin_features;
		this->destroy = plugin_destroy;
	}
	return this;
}
