//! Declarations of wire types that read like their `.x` source and carry documentation.
//!
//! Declarative rather than derived: no procedural-macro crate to build, and the expansion is what one would write by
//! hand. In the tests of the declaring crate each type also gets a [`Sample`](crate::Sample) implementation, so
//! that crate enables the feature `sample` of this one among its dev-dependencies.

/// Declares structures (RFC 4506 §4.14): fields are encoded in their order.
///
/// `Debug`, `Clone`, `PartialEq` and `Eq` are derived; more can be asked for by attribute.
#[macro_export]
macro_rules! xdr_struct {
    ($(
        $(#[$m:meta])*
        $v:vis struct $name:ident $(<$($g:ident),+>)? {
            $( $(#[$fm:meta])* $fv:vis $f:ident : $t:ty ),+ $(,)?
        }
    )+) => { $(
        $(#[$m])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        $v struct $name $(<$($g),+>)? {
            $( $(#[$fm])* $fv $f: $t ),+
        }

        impl $(<$($g: $crate::Encode),+>)? $crate::Encode for $name $(<$($g),+>)? {
            #[inline]
            fn encode(&self, e: &mut $crate::Encoder) {
                $( $crate::Encode::encode(&self.$f, e); )+
            }
        }

        impl $(<$($g: $crate::Decode),+>)? $crate::Decode for $name $(<$($g),+>)? {
            const MIN_LEN: usize = 0 $( + <$t as $crate::Decode>::MIN_LEN )+;
            #[inline]
            fn decode(d: &mut $crate::Decoder) -> $crate::Result<Self> {
                Ok(Self { $( $f: $crate::Decode::decode(d)? ),+ })
            }
        }

        #[cfg(test)]
        impl $(<$($g: $crate::Sample),+>)? $crate::Sample for $name $(<$($g),+>)? {
            fn sample(s: &mut $crate::Entropy<'_>) -> Self {
                Self { $( $f: $crate::Sample::sample(s) ),+ }
            }
        }
    )+ };
}

/// Declares an enumeration (RFC 4506 §4.3). A value that is not listed does not decode.
///
/// Besides the usual derives it gets `ALL`, `from_u32` and `to_u32`.
#[macro_export]
macro_rules! xdr_enum {
    ($(
        $(#[$m:meta])*
        $v:vis enum $name:ident {
            $( $(#[$vm:meta])* $variant:ident = $value:literal ),+ $(,)?
        }
    )+) => { $(
        $(#[$m])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        $v enum $name {
            $( $(#[$vm])* $variant = $value ),+
        }

        impl $name {
            /// All values, in the order of declaration.
            $v const ALL: &'static [Self] = &[$( Self::$variant ),+];

            /// The value with this number on the wire.
            #[inline]
            $v const fn from_u32(v: u32) -> Option<Self> {
                match v {
                    $( $value => Some(Self::$variant), )+
                    _ => None,
                }
            }

            /// The number on the wire.
            #[inline]
            $v const fn to_u32(self) -> u32 {
                self as u32
            }
        }

        impl $crate::Encode for $name {
            #[inline]
            fn encode(&self, e: &mut $crate::Encoder) {
                e.u32(*self as u32);
            }
        }

        impl $crate::Decode for $name {
            const MIN_LEN: usize = 4;
            #[inline]
            fn decode(d: &mut $crate::Decoder) -> $crate::Result<Self> {
                let value = d.u32()?;
                Self::from_u32(value)
                    .ok_or($crate::Error::BadDiscriminant { kind: stringify!($name), value })
            }
        }

        #[cfg(test)]
        impl $crate::Sample for $name {
            fn sample(s: &mut $crate::Entropy<'_>) -> Self {
                Self::ALL[s.below(Self::ALL.len())]
            }
        }
    )+ };
}

/// Declares a discriminated union (RFC 4506 §4.15): `number => Variant` for a void arm,
/// `number => Variant(name: Type)` for one with data. A discriminant that is not listed does not decode.
#[macro_export]
macro_rules! xdr_union {
    ($(
        $(#[$m:meta])*
        $v:vis enum $name:ident $(<$($g:ident),+>)? {
            $( $(#[$vm:meta])* $value:literal => $variant:ident $( ($arm:ident : $t:ty) )? ),+ $(,)?
        }
    )+) => { $(
        $(#[$m])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        $v enum $name $(<$($g),+>)? {
            $( $(#[$vm])* $variant $( ($t) )? ),+
        }

        impl $(<$($g: $crate::Encode),+>)? $crate::Encode for $name $(<$($g),+>)? {
            #[inline]
            fn encode(&self, e: &mut $crate::Encoder) {
                match self {
                    $( Self::$variant $( ($arm) )? => {
                        e.u32($value);
                        $( $crate::Encode::encode($arm, e); )?
                    } )+
                }
            }
        }

        impl $(<$($g: $crate::Decode),+>)? $crate::Decode for $name $(<$($g),+>)? {
            const MIN_LEN: usize = 4;
            #[inline]
            fn decode(d: &mut $crate::Decoder) -> $crate::Result<Self> {
                match d.u32()? {
                    $( $value => Ok(Self::$variant $( ({
                        let $arm: $t = $crate::Decode::decode(d)?;
                        $arm
                    }) )? ), )+
                    value => Err($crate::Error::BadDiscriminant { kind: stringify!($name), value }),
                }
            }
        }

        #[cfg(test)]
        impl $(<$($g: $crate::Sample),+>)? $crate::Sample for $name $(<$($g),+>)? {
            fn sample(s: &mut $crate::Entropy<'_>) -> Self {
                let arms: &[fn(&mut $crate::Entropy<'_>) -> Self] = &[
                    $( |_s| Self::$variant $( ({
                        let $arm: $t = $crate::Sample::sample(_s);
                        $arm
                    }) )? ),+
                ];
                arms[s.below(arms.len())](s)
            }
        }
    )+ };
}
