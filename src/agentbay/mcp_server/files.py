"""Tools for files, and for servers in the sandbox."""

from __future__ import annotations

from typing import Annotated

from mcp.server.mcpserver import Image
from pydantic import BaseModel, Field

from .tool_group import ToolGroup, shorten, tool

_PATH = "Path in the sandbox; a relative one starts at the home directory."
_Path = Annotated[str, Field(description=_PATH)]
# How files of these types begin.
_IMAGE_FORMATS = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif"}


class Edit(BaseModel):
    """A replacement in a file."""

    old_text: str = Field(min_length=1, description="Text that is in the file, exactly as it is there.")
    new_text: str = Field(description="Text to put in its place.")


class FileTools(ToolGroup):
    """Read, write and find files."""

    group = "files"

    @tool(writes=False)
    async def read_file(
        self,
        path: _Path,
        first_line: Annotated[int, Field(ge=1, description="Number of the first line to return.")] = 1,
        max_lines: Annotated[int, Field(ge=1, le=20_000, description="How many lines to return at most.")] = 2000,
    ) -> str | Image:
        """Read a text file, or look at a PNG, JPEG or GIF image."""
        content = (await (await self.current.get()).file_system.read_file(path, format="bytes")).unwrap().content
        for start, kind in _IMAGE_FORMATS.items():
            if content.startswith(start):
                return Image(data=content, format=kind)
        try:
            lines = content.decode().splitlines(keepends=True)
        except UnicodeDecodeError:
            return f"{path} is no text: {len(content)} bytes that start with {content[:16].hex(' ')}."
        chosen = lines[first_line - 1 : first_line - 1 + max_lines]
        rest = len(lines) - (first_line - 1) - len(chosen)
        return shorten("".join(chosen)) + (f"\n[{rest} more lines]" if rest > 0 else "")

    @tool(destroys=True)
    async def write_file(
        self,
        path: _Path,
        content: Annotated[str, Field(description="The whole text of the file, or what to append.")],
        append: Annotated[bool, Field(description="Append to the file instead of replacing it.")] = False,
    ) -> str:
        """Write a text file, which replaces what is there."""
        mode = "append" if append else "overwrite"
        (await (await self.current.get()).file_system.write_file(path, content, mode)).unwrap()
        return f"Written {len(content.encode())} bytes to {path}."

    @tool(destroys=True)
    async def edit_file(
        self,
        path: _Path,
        edits: Annotated[list[Edit], Field(min_length=1, description="Replacements, made one after the other.")],
    ) -> str:
        """Replace pieces of a text file."""
        given = [{"oldText": edit.old_text, "newText": edit.new_text} for edit in edits]
        (await (await self.current.get()).file_system.edit_file(path, given)).unwrap()
        return f"Edited {path}."

    @tool(writes=False)
    async def list_directory(self, path: _Path = ".") -> str:
        """List a directory: names, with a slash after directories, and sizes in bytes."""
        entries = (await (await self.current.get()).file_system.list_directory(path)).unwrap().entries
        lines = [f"{each.name}/" if each.is_directory else f"{each.name}  {each.size}" for each in entries]
        return shorten("\n".join(lines)) or "The directory is empty."

    @tool(writes=False)
    async def search_files(
        self,
        pattern: Annotated[str, Field(description="Pattern for names, such as *.py")],
        path: _Path = ".",
    ) -> str:
        """Find files by name in a directory and below it."""
        matches = (await (await self.current.get()).file_system.search_files(path, pattern)).unwrap().matches
        return shorten("\n".join(matches)) or "No file has such a name."

    @tool()
    async def create_directory(self, path: _Path) -> str:
        """Create a directory, and those above it."""
        (await (await self.current.get()).file_system.create_directory(path)).unwrap()
        return f"Created {path}."

    @tool(destroys=True)
    async def move_file(
        self,
        source: Annotated[str, Field(description=f"File or directory to move. {_PATH}")],
        destination: Annotated[str, Field(description=f"Its new path. {_PATH}")],
    ) -> str:
        """Move or rename a file or a directory."""
        (await (await self.current.get()).file_system.move_file(source, destination)).unwrap()
        return f"Moved {source} to {destination}."

    @tool(destroys=True)
    async def delete_file(self, path: _Path) -> str:
        """Delete a file or a directory."""
        (await (await self.current.get()).file_system.delete_file(path)).unwrap()
        return f"Deleted {path}."


class LinkTools(ToolGroup):
    """Reach servers in the sandbox."""

    group = "links"

    @tool()
    async def get_link(
        self,
        port: Annotated[
            int, Field(ge=1, le=65535, description="Port of a server in the sandbox; in the cloud 30100 to 30199.")
        ],
    ) -> str:
        """Make a URL for a server of the sandbox, which a browser opens."""
        return str((await (await self.current.get()).get_link("https", port)).unwrap().data)
