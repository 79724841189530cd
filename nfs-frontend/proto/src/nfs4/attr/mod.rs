//! Attributes: numbers, types, and `fattr4`, which is a bitmap and the values of its attributes in the order of their
//! numbers, without anything between (RFC 8881 §3.3.7, §5).

mod bitmap;
mod fattr;
mod settable;
mod table;
mod types;

pub use bitmap::Bitmap;
pub use fattr::{AttrError, Fattr4, FattrWriter};
pub use settable::SetAttrs4;
pub use table::{Attr4, AttrValue4, Direction};
pub use types::{
    ChangeAttrType4, ChangePolicy4, FsLocation4, FsLocations4, FsLocationsInfo4, FsLocationsItem4,
    FsLocationsServer4, FsStatus4, FsStatusType4, LayoutHint4, LayoutTypes4, MdsThreshold4, ModeMasked4,
    ModeUmask4, OpenArguments4, RetentionGet4, RetentionSet4, SecLabel4, ThresholdItem4, charset, fh_expire,
    open_args_want,
};
