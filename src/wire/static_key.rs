//! Key files: "OpenVPN Static key V1" and the two tls-crypt-v2 PEM kinds [2.1, 2.5].

/// 256 bytes shared by both ends; wiped on drop.
#[derive(Clone, zeroize::ZeroizeOnDrop)]
pub struct StaticKey(pub(crate) [u8; 256]);

/// The server's tls-crypt-v2 key: Ke in 0..32, Ka in 64..96.
#[derive(Clone, zeroize::ZeroizeOnDrop)]
pub struct V2ServerKey(pub(crate) [u8; 128]);

/// A client's tls-crypt-v2 key Kc and the wrapped form the server reads it from.
#[derive(Clone)]
pub struct V2ClientKey {
    /// Used as a tls-crypt key.
    pub key: StaticKey,
    /// WKc as it goes on the wire, length field included.
    pub wrapped: Vec<u8>,
}

/// Debug shows no key bytes.
macro_rules! opaque { ($($t:ident),*) => { $(impl core::fmt::Debug for $t {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result { f.write_str(concat!(stringify!($t), "(..)")) }
})* } }
opaque!(StaticKey, V2ServerKey, V2ClientKey);
