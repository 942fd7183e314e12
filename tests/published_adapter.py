"""The adapter as a PyTorch class, written from the published key list and forward pass."""

import torch


class PublishedAdapter(torch.nn.Module):
    def __init__(self, input_dim: int, hidden_dim: int, pooled_dim: int, output_dim: int):
        super().__init__()
        linear, gelu = torch.nn.Linear, torch.nn.GELU()
        self.layernorm = torch.nn.LayerNorm(input_dim)
        self.projector = torch.nn.Sequential(
            linear(input_dim, hidden_dim, bias=False),
            gelu,
            linear(hidden_dim, hidden_dim, bias=False),
            gelu,
            linear(hidden_dim, pooled_dim, bias=False),
        )
        self.fc = linear(pooled_dim, output_dim)

    def forward(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pooled first, then tokens: the published order."""
        y = self.projector(self.layernorm(states))
        return y.mean(dim=1), self.fc(torch.nn.functional.gelu(y))
