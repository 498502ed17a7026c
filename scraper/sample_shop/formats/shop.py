"""A shop with a sitemap and described pages, as `scraper/spiders/shop.py` parses them."""

import json
from html import escape
from typing import Any

from scraper.sample_shop.http import PhotoRequest, SiteRequest, SiteResponse, html, plain
from scraper.sample_shop.stock import Item, Stock

# How pages describe their product: json-ld, graph (within `@graph`, with related products), broken
# (JSON that has to be repaired), microdata, opengraph. challenge: a page for persons only.
GENERATIONS = ("json-ld", "graph", "broken", "microdata", "opengraph", "challenge")
# What a crawl of the shop needs beside its URLs.
OPTIONS = "--set shop=shop.example.com"
HOST = "https://shop.example.com"
IMAGES = "https://images.example.com"
ROBOTS = f"User-agent: *\nDisallow: /cart\nSitemap: {HOST}/sitemap.xml\n"
PRODUCT_SITEMAP = "/sitemap_products.xml"
NAMESPACE = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'


def respond(
    stock: Stock, request: SiteRequest, generation: str = "json-ld"
) -> SiteResponse | PhotoRequest:
    """Return the response of the shop or of its image host to a request."""
    if request.path == "/robots.txt":
        return plain(ROBOTS)
    if request.path == "/sitemap.xml":
        urls = [PRODUCT_SITEMAP, "/sitemap_pages.xml"]
        return _xml("sitemapindex", "sitemap", urls)
    if request.path == PRODUCT_SITEMAP:
        return _xml("urlset", "url", [product_path(item) for item in stock.items])
    if request.path.startswith("/photos/"):
        return PhotoRequest(request.path.removeprefix("/photos"), None)
    item = stock.by_sku.get(request.path.removeprefix("/products/").upper())
    if generation == "challenge":
        return html("<title>Just a moment...</title>", 403)
    return html(product_page(item, stock, generation)) if item else html("<h1>404</h1>", 404)


def _xml(root: str, entry: str, paths: list[str]) -> SiteResponse:
    entries = "".join(f"<{entry}><loc>{HOST}{path}</loc></{entry}>\n" for path in paths)
    text = f'<?xml version="1.0" encoding="UTF-8"?><{root} {NAMESPACE}>{entries}</{root}>'
    return SiteResponse(200, "application/xml", text.encode())


def product_path(item: Item) -> str:
    """Return the path of a product's page."""
    return f"/products/{item.sku.lower()}"


def product_page(item: Item, stock: Stock, generation: str = "json-ld") -> str:
    """Return the page of a product."""
    if generation == "microdata":
        head, body = "", microdata(item)
    elif generation == "opengraph":
        head, body = open_graph(item), ""
    else:
        head, body = _json_ld(item, stock, generation), ""
    link = f'<link rel="canonical" href="{HOST}{product_path(item)}">'
    return f"<!DOCTYPE html>\n<html><head>{link}\n{head}</head><body>{body}</body></html>"


def _json_ld(item: Item, stock: Stock, generation: str) -> str:
    values: list[dict[str, Any]] = [product(item), breadcrumbs(item)]
    if generation == "graph":
        others = [product(other) for other in stock.items[:2] if other is not item]
        page = {"@type": "ItemPage", "mainEntity": product(item), "isRelatedTo": others}
        values = [{"@context": "https://schema.org", "@graph": [page, breadcrumbs(item)]}]
    texts = [json.dumps(value, ensure_ascii=False).replace("</", "<\\/") for value in values]
    if generation == "broken":
        texts = [f"// <![CDATA[\n{text[:-1]},}};\n// ]]>" for text in texts]
    return "\n".join(f'<script type="application/ld+json">{text}</script>' for text in texts)


def product(item: Item) -> dict[str, Any]:
    """Return a product as schema.org describes it."""
    url = HOST + product_path(item)
    return {
        "@context": "https://schema.org/",
        "@type": "Product",
        "url": url,
        "name": item.name,
        "image": [f"{IMAGES}/photos{photo.path}" for photo in item.photos],
        "description": escape(f"{item.name} {item.brand}"),
        "sku": item.sku,
        "category": item.labels[0],
        "keywords": ", ".join(item.labels),
        "color": item.colour,
        "brand": {"@type": "Brand", "name": item.brand},
        "offers": {
            "@type": "Offer",
            "url": url,
            "priceCurrency": "RUB",
            "price": f"{item.price}.00",
            "availability": "https://schema.org/InStock",
        },
    }


def breadcrumbs(item: Item) -> dict[str, Any]:
    """Return the way from the front page to a product."""
    names = (("Home", "/"), (item.category, "/c/1"), (item.name, product_path(item)))
    return {
        "@context": "https://schema.org",
        "@type": "BreadcrumbList",
        "itemListElement": [
            {"@type": "ListItem", "position": number, "name": name, "item": HOST + path}
            for number, (name, path) in enumerate(names, 1)
        ],
    }


def microdata(item: Item) -> str:
    """Return a product as microdata."""
    images = "".join(f'<img itemprop="image" src="{IMAGES}/photos{p.path}">' for p in item.photos)
    return f"""<div itemscope itemtype="http://schema.org/Product">
<h1 itemprop="name">{escape(item.name)}</h1>{images}
<span itemprop="category" content="{escape(" > ".join(item.labels))}"></span>
<span itemprop="brand">{escape(item.brand)}</span>
<div itemprop="offers" itemscope itemtype="http://schema.org/Offer">
<meta itemprop="priceCurrency" content="RUB">
<span itemprop="price">{item.price}</span></div></div>"""


def open_graph(item: Item) -> str:
    """Return a product as OpenGraph describes it."""
    values = [
        ("og:type", "product"),
        ("og:title", item.name),
        *(("og:image", f"{IMAGES}/photos{photo.path}") for photo in item.photos),
        ("product:price:amount", f"{item.price}.00"),
        ("product:price:currency", "RUB"),
        ("product:brand", item.brand),
        ("product:category", " > ".join(item.labels)),
    ]
    return "\n".join(
        f'<meta property="{name}" content="{escape(value)}">' for name, value in values
    )
