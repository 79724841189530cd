//! Attributes to set: the typed form of the `fattr4` of SETATTR, CREATE and OPEN (RFC 8881 §5.5, §18.30).

use super::{
    Attr4, AttrError, AttrValue4, Bitmap, Direction, Fattr4, LayoutHint4, ModeMasked4, ModeUmask4,
    RetentionSet4, SecLabel4,
};
use crate::nfs4::{Acl4, Acl41, NfsTime4, Principal4, SetTime4, Text4};

macro_rules! settable {
    ($( $(#[$m:meta])* $field:ident: $name:ident($t:ty), )+) => {
        /// Attributes to set; `None` leaves as it is. The default sets nothing.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct SetAttrs4 {
            $( $(#[$m])* pub $field: Option<$t> ),+
        }

        impl SetAttrs4 {
            /// All attributes that can be set.
            pub const ALL: Bitmap = Bitmap::of(&[$( Attr4::$name as u32 ),+]);

            fn take(&mut self, value: AttrValue4) -> Result<(), AttrError> {
                match value {
                    $( AttrValue4::$name(value) => self.$field = Some(value), )+
                    other => return Err(AttrError::ReadOnly(other.attr())),
                }
                Ok(())
            }

            /// The values in the order of their numbers.
            pub fn values(&self) -> Vec<AttrValue4> {
                let mut all = Vec::new();
                $( all.extend(self.$field.clone().map(AttrValue4::$name)); )+
                all
            }
        }
    };
}

settable! {
    /// Size in bytes: truncates or extends with zeros.
    size: Size(u64),
    /// Access control list.
    acl: Acl(Acl4),
    /// Whether it was archived since the last change.
    archive: Archive(bool),
    /// Whether it is hidden.
    hidden: Hidden(bool),
    /// MIME type.
    mime_type: MimeType(Text4),
    /// Permission bits.
    mode: Mode(u32),
    /// Owner.
    owner: Owner(Principal4),
    /// Group.
    group: OwnerGroup(Principal4),
    /// Whether it is a system file.
    system: System(bool),
    /// Time of the last access.
    atime: TimeAccessSet(SetTime4),
    /// Time of the last backup.
    time_backup: TimeBackup(NfsTime4),
    /// Time of creation.
    time_create: TimeCreate(NfsTime4),
    /// Time of the last change of data.
    mtime: TimeModifySet(SetTime4),
    /// Entries that allow and deny.
    dacl: Dacl(Acl41),
    /// Entries that log and alarm.
    sacl: Sacl(Acl41),
    /// A hint for layouts.
    layout_hint: LayoutHint(LayoutHint4),
    /// Retention.
    retention: RetentionSet(RetentionSet4),
    /// Retention by event.
    retention_event: RetentEvtSet(RetentionSet4),
    /// Administrative holds.
    retention_hold: RetentionHold(u64),
    /// Some bits of the mode.
    mode_masked: ModeSetMasked(ModeMasked4),
    /// Label of mandatory access control.
    sec_label: SecLabel(SecLabel4),
    /// Mode and umask of a creation.
    mode_umask: ModeUmask(ModeUmask4),
    /// A delegate's time of the last access.
    deleg_atime: TimeDelegAccess(NfsTime4),
    /// A delegate's time of the last change of data.
    deleg_mtime: TimeDelegModify(NfsTime4),
}

impl SetAttrs4 {
    /// Reads what a client wants set, of which `supported` are handled by the server in the minor version at hand.
    ///
    /// The bitmap is looked at before any value: an attribute outside `supported` is
    /// [`Unsupported`](AttrError::Unsupported), one within that is only read is [`ReadOnly`](AttrError::ReadOnly), as
    /// RFC 8881 §5.5 has it.
    pub fn read(fattr: &Fattr4, supported: &Bitmap) -> Result<Self, AttrError> {
        for number in fattr.mask.iter() {
            match Attr4::from_u32(number).filter(|_| supported.contains(number)) {
                None => return Err(AttrError::Unsupported(number)),
                Some(attr) if attr.direction() == Direction::Read => return Err(AttrError::ReadOnly(attr)),
                Some(_) => {}
            }
        }
        let mut set = Self::default();
        fattr.for_each(|value| set.take(value))?;
        Ok(set)
    }

    /// Which attributes are set.
    pub fn mask(&self) -> Bitmap {
        self.values().iter().map(|value| value.attr().to_u32()).collect()
    }

    /// As `fattr4`; `None` if the values are above their bound.
    pub fn to_fattr(&self) -> Option<Fattr4> {
        Fattr4::build(&self.values())
    }
}
