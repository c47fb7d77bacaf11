//! Verifies RS256 and ES256 with the OpenSSL that the process has anyway. It signs nothing and knows no other algorithm.

use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{Error, ErrorKind},
    signature::{self, Verifier},
};
use openssl::{
    bn::{BigNum, BigNumContext},
    ec::{EcGroup, EcKey, EcPoint},
    ecdsa::EcdsaSig,
    error::ErrorStack,
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKey, Public},
    rsa::Rsa,
    sign,
};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| -> Result<Box<dyn JwtSigner>, Error> { Err(ErrorKind::InvalidAlgorithm.into()) },
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

/// Bytes of each half of an ES256 signature.
const HALF: usize = 32;

/// Makes it this process's, once; a second time changes nothing.
pub(super) fn install() {
    _ = PROVIDER.install_default();
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    let key = match (algorithm, key.kind()) {
        (Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { n, e }) => rsa(n, e),
        (Algorithm::ES256, DecodingKeyKind::SecretOrDer(point)) => p256(point),
        _ => return Err(ErrorKind::InvalidAlgorithm.into()),
    };
    let invalid = |_| match algorithm {
        Algorithm::RS256 => Error::from(ErrorKind::InvalidKeyFormat),
        _ => ErrorKind::InvalidEcdsaKey.into(),
    };
    Ok(Box::new(OpenSsl { algorithm: *algorithm, key: key.map_err(invalid)? }))
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<PKey<Public>, ErrorStack> {
    let key = Rsa::from_public_components(BigNum::from_slice(modulus)?, BigNum::from_slice(exponent)?)?;
    PKey::from_rsa(key)
}

/// A key from an uncompressed point; one that is not on the curve is refused.
fn p256(point: &[u8]) -> Result<PKey<Public>, ErrorStack> {
    let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    let mut context = BigNumContext::new()?;
    let point = EcPoint::from_bytes(&curve, point, &mut context)?;
    let key = EcKey::from_public_key(&curve, &point)?;
    key.check_key()?;
    PKey::from_ec_key(key)
}

struct OpenSsl {
    algorithm: Algorithm,
    key: PKey<Public>,
}

impl OpenSsl {
    fn accepts(&self, message: &[u8], signature: &[u8]) -> Result<bool, ErrorStack> {
        let mut verifier = sign::Verifier::new(MessageDigest::sha256(), &self.key)?;
        if self.algorithm == Algorithm::RS256 {
            return verifier.verify_oneshot(signature, message);
        }
        // A JWS carries the two numbers side by side, OpenSSL takes them in DER (RFC 7518, section 3.4).
        let Some((r, s)) = signature.split_at_checked(HALF).filter(|(_, s)| s.len() == HALF) else {
            return Ok(false);
        };
        let signature = EcdsaSig::from_private_components(BigNum::from_slice(r)?, BigNum::from_slice(s)?)?.to_der()?;
        verifier.verify_oneshot(&signature, message)
    }
}

impl Verifier<Vec<u8>> for OpenSsl {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        match self.accepts(message, signature) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(signature::Error::new()),
        }
    }
}

impl JwtVerifier for OpenSsl {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
