"""Pure builders, one for each kind of child."""

from typing import Any

from greenroom_operator.api.modeldeployment import ModelDeployment
from greenroom_operator.api.shadow import ShadowPlacement
from greenroom_operator.resources.config import build_config
from greenroom_operator.resources.deployment import build_deployment, build_shadow_deployment
from greenroom_operator.resources.flags import build_flags
from greenroom_operator.resources.service import build_service, build_shadow_service
from greenroom_operator.resources.serviceaccount import build_service_account
from greenroom_runtime.contract.flags import FlagStore


def build_children(
    deployment: ModelDeployment, *, flags: FlagStore, default_image: str
) -> list[dict[str, Any]]:
    """Return every child that the spec and the flag store ask for, in the order of their application."""
    shadow = deployment.spec.shadow
    account = [] if deployment.spec.service_account_name else [build_service_account(deployment)]
    own_pods = (
        [
            build_shadow_service(deployment),
            build_shadow_deployment(deployment, default_image=default_image),
        ]
        if shadow is not None and shadow.placement is ShadowPlacement.DEPLOYMENT
        else []
    )
    return [
        *account,
        build_config(deployment),
        build_flags(deployment, flags=flags),
        build_service(deployment),
        build_deployment(deployment, default_image=default_image),
        *own_pods,
    ]
