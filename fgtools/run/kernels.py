"""The kernels that run the series' notebooks: this very interpreter, ended when the series ends, however that happens.

Knows jupyter_client's kernel manager. Jupyter looks for a kernelspec by its name, and one that somebody has installed
as "python3" may start another Python, where other packages are: so none is looked for.
"""

from __future__ import annotations

import signal
from typing import Any

from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

from fgtools.run.processes import STOP_SECONDS, end_with_this


class OwnKernelManager(AsyncKernelManager):
    """Starts a kernel in the interpreter that runs this code, whatever a kernelspec of that name says.

    A kernel is interrupted first, so that its cell can clean up, then told to end, and killed after shutdown_wait_time.
    """

    shutdown_wait_time = STOP_SECONDS

    @property
    def kernel_spec(self) -> KernelSpec:
        """What starts the kernel: this interpreter, with ipykernel."""
        return KernelSpec(**get_kernel_dict())

    async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
        await super()._async_launch_kernel(kernel_cmd, **kw, **end_with_this(signal.SIGTERM))
