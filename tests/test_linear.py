"""Packed products against torch's own."""

import pytest
import torch

from inference_server.engine.linear import Linear, PackedLinear, pack, packing_pays

pytestmark = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this processor has no bfloat16 products"
)


def weights(outputs: int, inputs: int) -> tuple[Linear, PackedLinear]:
    plain = Linear(inputs, outputs).to(torch.bfloat16).requires_grad_(False)
    plain.weight.uniform_(-(inputs**-0.5), inputs**-0.5)
    return plain, PackedLinear(plain.weight)


@pytest.mark.parametrize(("outputs", "inputs"), [(256, 128), (1000, 64), (37, 200)])
def test_packed_product_is_torchs_own(outputs: int, inputs: int) -> None:
    plain, packed = weights(outputs, inputs)
    for rows in (1, 3, 8, 50):
        hidden = torch.randn(rows, inputs).bfloat16()
        assert torch.equal(packed(hidden), plain(hidden))


def test_residual_is_added_before_the_only_rounding() -> None:
    plain, packed = weights(256, 128)
    hidden, residual = torch.randn(5, 128).bfloat16(), torch.randn(5, 256).bfloat16()
    exact = hidden.double() @ plain.weight.double().T + residual.double()
    assert torch.allclose(packed.plus(hidden, residual).double(), exact, rtol=2**-8, atol=1e-6)
    assert torch.allclose(plain.plus(hidden, residual).double(), exact, rtol=2**-6, atol=2**-6)


def test_row_does_not_depend_on_the_rows_beside_it() -> None:
    _, packed = weights(512, 256)
    hidden, residual = torch.randn(200, 256).bfloat16(), torch.randn(200, 512).bfloat16()
    product, total = packed(hidden), packed.plus(hidden, residual)
    for rows in (1, 2, 5, 8, 17, 64, 129):
        assert torch.equal(packed(hidden[:rows]), product[:rows])
        assert torch.equal(packed.plus(hidden[:rows], residual[:rows]), total[:rows])


def test_packing_replaces_every_product_of_a_module() -> None:
    plain, _ = weights(8, 4)
    module = torch.nn.ModuleDict({"first": plain, "inner": torch.nn.ModuleDict({"second": plain})})
    pack(module)
    assert [type(child) for child in module.modules() if "Linear" in type(child).__name__] == [PackedLinear] * 2


def test_float32_is_not_packed() -> None:
    assert not packing_pays(torch.ones(8, 8))
