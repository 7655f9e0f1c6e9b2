"""The file systems of paths, from the text of Linux."""

from pathlib import Path

import pytest

from target_moengage_cohort.core.mounts import _NETWORK, file_system

MOUNTS = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 27 0:40 / /mnt/nfs rw,relatime shared:5 - nfs4 server:/export rw,vers=4.2
31 30 0:41 / /mnt/nfs/local rw,relatime - xfs /dev/vdb rw
32 27 0:42 / /mnt/two\040words rw,relatime - cifs //server/share rw
33 27 0:43 / /mnt/twice rw,relatime - ext4 /dev/vdc rw
34 33 0:44 / /mnt/twice rw,relatime - fuse.sshfs user@host: rw
35 27 0:45 /sub /mnt/sub rw,relatime master:1 - btrfs /dev/vdd rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/data/.local/state", "ext4"),
        ("/mnt/nfs", "nfs4"),
        ("/mnt/nfs/ledger/x", "nfs4"),
        ("/mnt/nfs-not/ledger", "ext4"),
        ("/mnt/nfs/local/ledger", "xfs"),
        ("/mnt/two words/ledger", "cifs"),
        ("/mnt/twice/ledger", "fuse.sshfs"),
        ("/mnt/sub/ledger", "btrfs"),
    ],
)
def test_a_path_is_on_its_nearest_mount(path, kind):
    """The longest mounted place above a path counts, and of two mounts there the later one."""
    assert kind == file_system(MOUNTS, Path(path))


def test_a_text_without_the_path_has_no_type():
    """Without any mount above the path, the type is unknown."""
    assert "" == file_system("", Path("/ledger"))


@pytest.mark.parametrize(
    ("kind", "is_network"),
    [
        *((each, True) for each in ("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "lustre")),
        *((each, True) for each in ("fuse", "fuseblk", "fuse.sshfs", "fuse.glusterfs")),
        *((each, False) for each in ("ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "")),
    ],
)
def test_network_file_systems_are_known(kind, is_network):
    """NFS, SMB, FUSE, 9p, Ceph and Lustre count as network file systems, local ones do not."""
    assert is_network == bool(_NETWORK.fullmatch(kind))
