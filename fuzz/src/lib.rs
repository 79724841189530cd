//! What the targets share: the properties that any bytes must satisfy.

use atoll_proto::rpc::Procedure;
use atoll_xdr::{Decode, Decoder, Encode, Encoder};
use bytes::Bytes;
use std::fmt::Debug;

/// Decodes `T`; if that succeeds, encoding and decoding again gives an equal value.
pub fn round_trip<T: Decode + Encode + PartialEq + Debug>(bytes: &Bytes) {
    let Ok(value) = Decoder::new(bytes.clone()).decode::<T>() else { return };
    let mut encoder = Encoder::new();
    encoder.put(&value);
    let again = Decoder::new(encoder.into_bytes()).decode::<T>();
    assert_eq!(again.as_ref(), Ok(&value));
}

/// The same for arguments and results of a procedure.
pub fn procedure<P>(bytes: &Bytes)
where
    P: Procedure<Args: PartialEq + Debug, Res: PartialEq + Debug>,
{
    round_trip::<P::Args>(bytes);
    round_trip::<P::Res>(bytes);
}

/// Makes a target that tries a program's procedures: the first byte chooses one.
#[macro_export]
macro_rules! program_target {
    ($( $($module:ident)::+ { $($name:ident)+ } )+) => {
        static PROCEDURES: std::sync::LazyLock<Vec<fn(&bytes::Bytes)>> = std::sync::LazyLock::new(|| {
            let mut all: Vec<fn(&bytes::Bytes)> = Vec::new();
            $( {
                use atoll_proto::$($module)::+::call;
                $( all.push($crate::procedure::<call::$name>); )+
            } )+
            all
        });
        libfuzzer_sys::fuzz_target!(|data: &[u8]| {
            let Some((choice, rest)) = data.split_first() else { return };
            let bytes = bytes::Bytes::copy_from_slice(rest);
            PROCEDURES[usize::from(*choice) % PROCEDURES.len()](&bytes);
        });
    };
}
