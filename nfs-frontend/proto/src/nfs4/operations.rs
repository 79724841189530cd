//! The macro that ties operation numbers to arguments and results, for COMPOUND and CB_COMPOUND.

/// Declares, for one direction, the enumeration of operation numbers, the union of arguments (`nfs_argop4`) and the
/// union of results (`nfs_resop4`). `since` is the first minor version that has the operation.
macro_rules! operations {
    (
        $(#[$m:meta])*
        number $num:ident, arguments $arg:ident, results $res:ident;
        $( $(#[$om:meta])* $name:ident $( ($args:ident : $args_t:ty) )? -> $res_t:ty = $value:literal, since $since:literal; )+
    ) => {
        atoll_xdr::xdr_enum! {
            $(#[$m])*
            pub enum $num {
                $( $(#[$om])* $name = $value ),+
            }
        }

        impl $num {
            /// The first minor version that has the operation.
            pub const fn since(self) -> u32 {
                match self { $( Self::$name => $since ),+ }
            }

            /// Reads the arguments that follow this number.
            pub fn decode_arguments(self, d: &mut atoll_xdr::Decoder) -> atoll_xdr::Result<$arg> {
                Ok(match self {
                    $( Self::$name => $arg::$name $( ({
                        let $args: $args_t = atoll_xdr::Decode::decode(d)?;
                        $args
                    }) )? ),+
                })
            }

            /// The operation's results with a failure that carries no data.
            pub fn failed(self, status: $crate::nfs4::NfsStat4) -> $res {
                match self { $( Self::$name => $res::$name($crate::nfs4::Outcome::failed(status)) ),+ }
            }
        }

        /// An operation with its arguments.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum $arg {
            $( $(#[$om])* $name $( ($args_t) )? ),+
        }

        impl $arg {
            /// Number of the operation.
            pub const fn op(&self) -> $num {
                match self { $( Self::$name { .. } => $num::$name ),+ }
            }
        }

        impl atoll_xdr::Encode for $arg {
            fn encode(&self, e: &mut atoll_xdr::Encoder) {
                e.u32(self.op().to_u32());
                match self {
                    $( Self::$name $( ($args) )? => { $( e.put($args); )? } )+
                }
            }
        }

        impl atoll_xdr::Decode for $arg {
            const MIN_LEN: usize = 4;

            fn decode(d: &mut atoll_xdr::Decoder) -> atoll_xdr::Result<Self> {
                d.decode::<$num>()?.decode_arguments(d)
            }
        }

        #[cfg(test)]
        impl atoll_xdr::Sample for $arg {
            fn sample(s: &mut atoll_xdr::Entropy<'_>) -> Self {
                match $num::sample(s) {
                    $( $num::$name => Self::$name $( ({
                        let $args: $args_t = atoll_xdr::Sample::sample(s);
                        $args
                    }) )? ),+
                }
            }
        }

        /// An operation's results.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum $res {
            $( $(#[$om])* $name($res_t) ),+
        }

        impl $res {
            /// Number of the operation.
            pub const fn op(&self) -> $num {
                match self { $( Self::$name(_) => $num::$name ),+ }
            }

            /// The status in the results.
            pub fn status(&self) -> $crate::nfs4::Status4 {
                match self { $( Self::$name(res) => $crate::nfs4::Outcome::status(res) ),+ }
            }
        }

        impl atoll_xdr::Encode for $res {
            fn encode(&self, e: &mut atoll_xdr::Encoder) {
                e.u32(self.op().to_u32());
                match self { $( Self::$name(res) => e.put(res) ),+ }
            }
        }

        impl atoll_xdr::Decode for $res {
            const MIN_LEN: usize = 8;

            fn decode(d: &mut atoll_xdr::Decoder) -> atoll_xdr::Result<Self> {
                Ok(match d.decode::<$num>()? { $( $num::$name => Self::$name(d.decode()?) ),+ })
            }
        }

        #[cfg(test)]
        impl atoll_xdr::Sample for $res {
            fn sample(s: &mut atoll_xdr::Entropy<'_>) -> Self {
                match $num::sample(s) {
                    $( $num::$name => Self::$name(atoll_xdr::Sample::sample(s)) ),+
                }
            }
        }

        #[cfg(test)]
        pub(crate) mod codecs {
            #[allow(unused_imports)]
            use super::*;

            /// Every type of arguments and results, to be tried alone.
            pub(crate) fn all() -> Vec<crate::tests::Codec> {
                vec![
                    $( $( crate::tests::codec::<$args_t>(), )? )+
                    $( crate::tests::codec::<$res_t>(), )+
                ]
            }
        }
    };
}
pub(super) use operations;
