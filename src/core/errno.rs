//! Numbers of errors, as Linux has them on x86-64, AArch64 and their like: what is decided by them is decided
//! here, without asking the kernel.

pub const EPERM: i32 = 1;
pub const ENOENT: i32 = 2;
pub const ENOEXEC: i32 = 8;
pub const EAGAIN: i32 = 11;
pub const ENOMEM: i32 = 12;
pub const EACCES: i32 = 13;
pub const EBUSY: i32 = 16;
pub const EEXIST: i32 = 17;
pub const ENOTDIR: i32 = 20;
pub const EINVAL: i32 = 22;
pub const ENOSPC: i32 = 28;
pub const EROFS: i32 = 30;
pub const ENAMETOOLONG: i32 = 36;
pub const ENOSYS: i32 = 38;
pub const EOPNOTSUPP: i32 = 95;
pub const EAFNOSUPPORT: i32 = 97;
pub const EADDRINUSE: i32 = 98;
pub const EADDRNOTAVAIL: i32 = 99;
pub const ECANCELED: i32 = 125;

#[cfg(test)]
mod tests {
    #[test]
    fn they_are_those_of_this_machine() {
        for (ours, kernels) in [
            (super::EPERM, libc::EPERM),
            (super::ENOENT, libc::ENOENT),
            (super::ENOEXEC, libc::ENOEXEC),
            (super::EAGAIN, libc::EAGAIN),
            (super::ENOMEM, libc::ENOMEM),
            (super::EACCES, libc::EACCES),
            (super::EBUSY, libc::EBUSY),
            (super::EEXIST, libc::EEXIST),
            (super::ENOTDIR, libc::ENOTDIR),
            (super::EINVAL, libc::EINVAL),
            (super::ENOSPC, libc::ENOSPC),
            (super::EROFS, libc::EROFS),
            (super::ENAMETOOLONG, libc::ENAMETOOLONG),
            (super::ENOSYS, libc::ENOSYS),
            (super::EOPNOTSUPP, libc::EOPNOTSUPP),
            (super::EAFNOSUPPORT, libc::EAFNOSUPPORT),
            (super::EADDRINUSE, libc::EADDRINUSE),
            (super::EADDRNOTAVAIL, libc::EADDRNOTAVAIL),
            (super::ECANCELED, libc::ECANCELED),
        ] {
            assert_eq!(ours, kernels);
        }
    }
}
